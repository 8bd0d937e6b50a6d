"""Inputs as tests make and list them."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from pipeline.planning import make_plan
from pipeline.sources.listing import list_recordings
from pipeline.sources.recording import InputError
from tests.reading.read_rows import content, open_reader


def listed(*inputs, **how):
    listing = list_recordings([str(i) for i in inputs], **how)
    return {recording.recording_id: recording for recording in listing.recordings}, listing.skipped


def error_of(*inputs, **how):
    with pytest.raises(InputError) as caught:
        listed(*inputs, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def heard(*inputs, **how):
    """Seconds decoded of every recording of the inputs, or its error."""
    plan = make_plan(list_recordings([str(i) for i in inputs], **how).recordings, shard_hours=1.0)
    with open_reader() as reader:
        row, _ = content(reader.read(0, 1, plan.to_pylist()))
    return {r["recording_id"]: r["error_type"] or round(r["duration_s"], 3) for r in row["recordings"]}


def manifest(tmp_path, name, lines):
    path = tmp_path / name
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def archive(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = data
                tar.addfile(info)
    return path
