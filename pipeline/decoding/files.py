"""Files without a name, through which samples go from one process to another."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref

import numpy as np


class AnonymousFile:
    """A file without a name, in memory where the system has such; closed when nobody has it any more."""

    def __init__(self) -> None:
        self.descriptor = _open()
        weakref.finalize(self, os.close, self.descriptor)


def content(descriptor: int) -> mmap.mmap | bytes:
    """What a file holds, without a copy."""
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if os.fstat(descriptor).st_size else b""


def samples_in(held: mmap.mmap | bytes, first_byte: int, num_samples: int, num_channels: int) -> np.ndarray:
    """Samples as they were written, int16 [channels, time], without a copy."""
    if not num_samples:
        return np.zeros((num_channels, 0), np.int16)
    samples = np.frombuffer(held, np.int16, num_samples * num_channels, first_byte)
    return samples.reshape(num_samples, num_channels).T


def _open() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("earshard-samples")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
