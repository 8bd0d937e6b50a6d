"""Containers of plain samples: where the samples lie, and where their header says that they end.

Sources: the specifications of RIFF, AIFF, Sun AU, Wave64 and CAF; EBU Tech 3306 (RF64).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.reading.blocks import read_at

MAX_CHUNKS = 1000
TAG_BYTES = 16  # read of a chunk's header and what follows it
SOX_AIFF = 0x7F000000  # what sox writes into an AIFF that it pipes
JOINED = (b"RIFF", b"RF64", b"FORM")  # another file follows, which is read on as samples
TRAILERS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")


@dataclass(frozen=True, kw_only=True)
class ChunkLayout:
    """How a container chains its chunks: a tag, a size, the body."""

    first: int  # where the first chunk lies
    tag_bytes: int
    size: str  # as `struct` writes it
    sound: bytes  # the tag of the chunk with the samples, its start
    skip: int = 0  # bytes between that chunk's header and the samples
    size_of_header_too: bool = False
    align: int = 2

    @property
    def header_bytes(self) -> int:
        """Bytes of a tag and its size."""
        return self.tag_bytes + struct.calcsize(self.size)

    def chunk_at(self, file: io.BufferedIOBase, at: int) -> tuple[bytes, int] | None:
        """The tag and the size of the body of the chunk at a place; None behind the last one."""
        header = read_at(file, at, self.header_bytes)
        if len(header) < self.header_bytes:
            return None
        (size,) = struct.unpack(self.size, header[self.tag_bytes :])
        return header[: self.tag_bytes], size - (self.header_bytes if self.size_of_header_too else 0)

    def after(self, at: int, size: int) -> int:
        """Where the chunk behind one at `at` begins."""
        return at + self.header_bytes + size + -size % self.align


RIFF = ChunkLayout(first=12, tag_bytes=4, size="<I", sound=b"data")
RIFX = ChunkLayout(first=12, tag_bytes=4, size=">I", sound=b"data")
AIFF = ChunkLayout(first=12, tag_bytes=4, size=">I", sound=b"SSND", skip=8)
W64 = ChunkLayout(first=40, tag_bytes=16, size="<q", sound=b"data", size_of_header_too=True, align=8)
CAF = ChunkLayout(first=8, tag_bytes=4, size=">q", sound=b"data", skip=4, align=1)
LAYOUTS = {b"RIFX": RIFX, b"FORM": AIFF, b"riff": W64, b"caff": CAF}


@dataclass(frozen=True, kw_only=True)
class SampleBytes:
    """Where the samples begin, and where the header says that they end; None: it leaves that open.

    `goes_on` is true where neither the end of the file nor another chunk follows there.
    """

    start: int
    stated_end: int | None
    goes_on: bool


def sample_bytes(file: io.BufferedIOBase, length: int) -> SampleBytes | None:
    """Where a container of plain samples keeps them; None where no chunk of samples is found."""
    head = read_at(file, 0, TAG_BYTES)
    if head[:4] == b".snd":
        start, size = struct.unpack(">II", head[4:12])
        return _stated(start, size, 1 << 32, start + size < length)
    layout = LAYOUTS.get(head[:4], RIFF)
    long_size = None  # of RF64, in a chunk of its own
    for tag, at, stated in _chunks(file, layout):
        if tag == b"ds64":
            long_size = int.from_bytes(read_at(file, at + 16, 8), "little")
        if tag.startswith(layout.sound):
            size = stated if long_size is None else long_size
            ends = layout.after(at, size)
            goes_on = not any(_is_chained(file, layout, end, length) for end in (ends, ends - size % 2))
            largest = 1 << 32 if long_size is None and "I" in layout.size else 1 << 63
            return _stated(at + layout.header_bytes + layout.skip, size - layout.skip, largest, goes_on)
    return None


def _chunks(file: io.BufferedIOBase, layout: ChunkLayout) -> Iterator[tuple[bytes, int, int]]:
    """Tag, place and size of one chunk after the other."""
    at = layout.first
    for _ in range(MAX_CHUNKS):
        chunk = layout.chunk_at(file, at)
        if chunk is None or chunk[1] < -layout.header_bytes:
            return
        yield chunk[0], at, chunk[1]
        at = layout.after(at, chunk[1])


def _stated(start: int, size: int, largest: int, goes_on: bool) -> SampleBytes:
    """What a size says; writers that cannot go back leave 0, the largest number, or one about half of it."""
    near = 1 << 16
    about_half = any(abs(size - number) <= near for number in (largest >> 1, SOX_AIFF))
    left_open = size >= largest - near or about_half or (size <= 0 and goes_on)
    return SampleBytes(start=start, stated_end=None if left_open else start + size, goes_on=goes_on)


def _is_chained(file: io.BufferedIOBase, layout: ChunkLayout, at: int, length: int) -> bool:
    """Whether from a place on chunks follow one another to the end of the file, or nothing follows."""
    for _ in range(MAX_CHUNKS):
        if length - at < layout.header_bytes or read_at(file, at, TAG_BYTES).startswith(TRAILERS):
            return True
        chunk = layout.chunk_at(file, at)
        if chunk is None:
            return True
        tag, size = chunk
        if tag in JOINED or not (
            tag[:4].isascii() and tag[:4].decode("ascii").isprintable() and 0 <= size <= length - at
        ):
            return False
        at = layout.after(at, size)
    return False
