"""Decoding as tests ask for it."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from pipeline.sources.opening import OpenRecording
from pipeline.sources.recording import RecordingError


@contextmanager
def opened(path, **clip):
    file = os.open(path, os.O_RDONLY)
    try:
        yield OpenRecording(
            name=os.path.basename(path), fd=file, start=0, length=os.fstat(file).st_size, **clip
        )
    finally:
        os.close(file)


def decode(decoder, path, **how):
    clip = {name: how.pop(name) for name in ("from_s", "to_s", "channel") if name in how}
    with opened(path, **clip) as source:
        return decoder.decode(source, **how)


def decode_starts(decoder, paths, max_s=60.0):
    with ExitStack() as files:
        return decoder.decode_starts([files.enter_context(opened(path)) for path in paths], max_s)


def error_of(decoder, path, **how):
    with pytest.raises(RecordingError) as caught:
        decode(decoder, path, **how)
    assert os.path.basename(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.error_type


def likeness(found, expected):
    """The correlation of two signals."""
    num = min(len(found), len(expected))
    return np.corrcoef(found[:num].astype(float), expected[:num].astype(float))[0, 1]
