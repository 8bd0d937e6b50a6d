"""What a decoder gives: a stream of blocks of samples; and what it reads, a range of an open file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

JOINED_FRAMES = 16_384


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive samples, [time, channels]: int16, or float with full scale at 1."""

    samples: np.ndarray
    rate: int


@dataclass(frozen=True, kw_only=True)
class Stream:
    """An opened recording whose blocks start at `start_s` seconds and follow one another without a gap.

    `clock_start_s` is what the container's clock says at 0 s where it begins elsewhere, else None.
    """

    decoded_by: str
    declared_s: float | None
    start_s: float
    blocks: Iterator[Block]
    clock_start_s: float | None = None
    names: tuple[str, ...] = ()  # of the audio streams, where there are several


def joined(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same samples in larger blocks: a frame of a codec is not worth the work on it."""
    waiting: list[Block] = []
    for block in blocks:
        if waiting and _kind(block) != _kind(waiting[0]):
            yield _as_one(waiting)
            waiting = []
        waiting.append(block)
        if sum(len(part.samples) for part in waiting) >= JOINED_FRAMES:
            yield _as_one(waiting)
            waiting = []
    if waiting:
        yield _as_one(waiting)


def _kind(block: Block) -> tuple[int, int, np.dtype]:
    return block.rate, block.samples.shape[1], block.samples.dtype


def _as_one(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    return Block(samples=np.concatenate([block.samples for block in blocks]), rate=blocks[0].rate)


class RangeFile(io.RawIOBase):
    """A range of an open file as a file of its own; reads never move the descriptor's position."""

    def __init__(self, fd: int, start: int, length: int) -> None:
        super().__init__()
        self._fd, self._start, self._length, self._position = fd, start, length, 0

    def readable(self) -> bool:
        """True: it can be read."""
        return True

    def seekable(self) -> bool:
        """True: it can be searched."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, as `io.RawIOBase` says."""
        size = min(len(buffer), self._length - self._position)
        if size <= 0:
            return 0
        data = os.pread(self._fd, size, self._start + self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as `io.IOBase` says."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise OSError(22, "seek before the start")
        self._position = base + offset
        return self._position


def open_range(fd: int, start: int, length: int) -> io.BufferedReader:
    """A buffered file over a range of an open file."""
    return io.BufferedReader(RangeFile(fd, start, length), 1 << 16)


def read_at(file: io.BufferedIOBase, offset: int, size: int) -> bytes:
    """Some bytes of a file; fewer where it ends."""
    file.seek(offset)
    return file.read(size)
