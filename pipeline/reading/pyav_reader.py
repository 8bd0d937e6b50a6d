"""Recordings read by FFmpeg through PyAV, on the clock of their container.

It reads a file object that Python opened, and is told the container or a list of such: it cannot follow a
name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import Any

import numpy as np

from pipeline.errors import one_line
from pipeline.reading.blocks import Block, Stream, joined, open_range
from pipeline.reading.clock import on_the_clock
from pipeline.reading.containers import DEMUXERS, Container
from pipeline.reading.sample_chunks import sample_bytes
from pipeline.sources.recording import RecordingError

# Demuxers by what FFmpeg calls them. Of the others the duration is a guess from the bit rate, and times are
# counted in samples.
STATE_LENGTH = {
    *(
        "wav",
        "aiff",
        "caf",
        "au",
        "w64",
        "voc",
        "nistsphere",
        "flac",
        "wv",
        "ape",
        "tta",
        "tak",
        "dsf",
        "iff",
    ),
    *("mov", "mxf"),
}
FROM_ZERO = {"mov", "matroska"}  # their clock begins at 0, whatever comes first
HAVE_CLOCK = {*FROM_ZERO, "mpegts", "mpeg", "mxf", "flv", "live_flv", "asf", "gxf", "wtv", "nut"}
KNOW_END = {*FROM_ZERO, "mxf", "asf"}
SEEK_EXACTLY = {"mov"}
MAX_LATE_S = 3600.0  # a clock that begins later is that of a broadcast and not of the recording
# A long recording is decoded in pieces, each by a decoder of its own that began a little earlier, so that a
# part of it comes out as it does in the whole.
PIECE_S = 600.0
RUN_UP_S = 3.0
MAX_STREAMS = 32
MAX_NAME = 60


class PyavReader:
    """One audio stream of a recording; `num_broken` counts packets that could not be decoded."""

    def __init__(self, fd: int, start: int, length: int, container: Container, stream: int = 0) -> None:
        """Open it. Raises `RecordingError`."""
        self._place, self._container, self._index = (fd, start, length), container, stream
        self.num_broken = 0
        self._opened = _Opened.of(self._place, container, stream)

    def stream(self, offset_s: float) -> Stream:
        """The recording from its start, or from the piece that holds `offset_s`."""
        opened = self._opened
        first = int(offset_s // PIECE_S) if opened.seeks_exactly else 0
        return Stream(
            decoded_by="pyav",
            declared_s=opened.declared_s,
            start_s=first * PIECE_S,
            blocks=joined(self._blocks(first)),
            clock_start_s=opened.zero_s or None,
            names=opened.names,
        )

    def _blocks(self, first: int) -> Iterator[Block]:
        """All pieces from one on. Raises `RecordingError` where nothing at all could be decoded."""
        num_blocks = 0
        for piece in count(first):
            opened = self._opened if piece == first else _Opened.of(self._place, self._container, self._index)
            ends_s = (piece + 1) * PIECE_S if opened.seeks_exactly else inf
            blocks = on_the_clock(
                self._timed(opened, piece * PIECE_S),
                from_s=piece * PIECE_S,
                to_s=ends_s,
                last_s=opened.last_s,
            )
            reached = False
            while True:
                try:
                    block = next(blocks)
                except StopIteration as end:
                    reached = end.value
                    break
                num_blocks += 1
                yield block
            if not reached:
                break
        if not num_blocks and self.num_broken:
            raise RecordingError("corrupt", f"FFmpeg: {one_line(self._last)}")

    def _timed(self, opened: _Opened, from_s: float) -> Iterator[tuple[float | None, Block]]:
        """Decoded frames with the times of their first samples, from `RUN_UP_S` before a time on."""
        for packet in self._packets(opened, from_s - RUN_UP_S):
            try:
                frames = packet.decode()
            except opened.errors as error:
                self.num_broken += 1
                self._last = error
                continue
            for frame in frames:
                yield opened.time_of(frame), Block(samples=_frame_samples(frame), rate=frame.sample_rate)

    def _packets(self, opened: _Opened, from_s: float) -> Iterator[Any]:
        """Packets from a time until the end, or until the container breaks off."""
        if from_s > 0:
            opened.seek(from_s)
        packets = opened.file.demux(opened.audio)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except opened.errors as error:
                self.num_broken += 1
                self._last = error
                return
            if from_s <= 0 or packet.pts is None or opened.time_at(packet.pts) >= from_s:
                yield packet


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A container that FFmpeg has open, and one audio stream of it."""

    file: Any
    format: str  # the first of the names that FFmpeg gives it
    audio: Any
    errors: tuple[type[Exception], ...]
    zero_s: float  # what its clock says where ours is 0
    names: tuple[str, ...]  # of its audio streams, where there are several

    @classmethod
    def of(cls, place: tuple[int, int, int], container: Container, index: int) -> _Opened:
        """Open it. Raises `RecordingError`."""
        import av

        errors = (av.FFmpegError, ValueError, IndexError, NotImplementedError)
        try:
            file = av.open(
                open_range(*place),
                format=container.ffmpeg_format,
                metadata_errors="ignore",
                options={
                    "protocol_whitelist": "none",
                    "enable_drefs": "0",
                    "format_whitelist": DEMUXERS,
                    **_beyond_the_header(place, container),
                },
            )
        except errors as error:
            if container.ffmpeg_format is None:
                raise RecordingError("unsupported", "is no audio format that is read here") from error
            raise RecordingError("corrupt", f"FFmpeg: {one_line(error)}") from error
        if not file.streams.audio:
            raise RecordingError("no_audio" if file.streams.video else "corrupt", "has no audio stream")
        streams = [stream for stream in file.streams.audio if stream.codec_context is not None]
        if index >= len(streams):
            raise RecordingError("unsupported", "FFmpeg: has no decoder for its audio")
        audio = streams[index]
        audio.thread_type = "NONE"
        start_s = (file.start_time or 0) / 1e6
        name = file.format.name.split(",")[0]
        is_from_zero = name in FROM_ZERO and start_s < MAX_LATE_S
        names = tuple(_name_of(stream) for stream in streams[:MAX_STREAMS]) if len(streams) > 1 else ()
        zero_s = 0.0 if is_from_zero or name not in HAVE_CLOCK else start_s
        return cls(file=file, format=name, audio=audio, errors=errors, zero_s=zero_s, names=names)

    def time_at(self, pts: int) -> float:
        """What our clock says at a time stamp."""
        return float(pts * self.audio.time_base) - self.zero_s

    def time_of(self, frame: Any) -> float | None:
        """When a frame begins; None where its container has no clock."""
        if frame.pts is None or self.format not in HAVE_CLOCK:
            return None
        return float(frame.pts * frame.time_base) - self.zero_s

    def seek(self, at_s: float) -> None:
        """Move to a packet at a time or before it."""
        self.file.seek(int((at_s + self.zero_s) / self.audio.time_base), stream=self.audio)

    @property
    def seeks_exactly(self) -> bool:
        """Whether its time stamps count samples, and it finds each packet."""
        step = self.audio.time_base * (self.audio.rate or 0)
        return self.format in SEEK_EXACTLY and step >= 1 and step.denominator == 1

    @property
    def declared_s(self) -> float | None:
        """Where the stream says that it ends."""
        if self.format not in STATE_LENGTH or not self.audio.duration:
            return None
        return self.time_at((self.audio.start_time or 0) + self.audio.duration)

    @property
    def last_s(self) -> float:
        """A time that no frame lies behind, as far as the container is to be believed."""
        if self.format not in KNOW_END or not self.file.duration:
            return inf
        return ((self.file.start_time or 0) + self.file.duration) / 1e6 - self.zero_s + 1.0


def _name_of(stream: Any) -> str:
    """The codec, language and title of a stream."""
    said = (stream.metadata.get(key) for key in ("language", "title"))
    name = ", ".join([stream.codec_context.name, *filter(None, said)])
    return "".join(sign if sign.isprintable() else "?" for sign in name)[:MAX_NAME]


def _beyond_the_header(place: tuple[int, int, int], container: Container) -> dict[str, str]:
    """An option of FFmpeg's for a WAV whose header says that it ends before it does."""
    if container.ffmpeg_format != "wav":
        return {}
    found = sample_bytes(open_range(*place), place[2])
    return {"ignore_length": "1"} if found is not None and found.goes_on else {}


FULL_SCALE = {"u1": 128.0, "i2": 32768.0, "i4": 2147483648.0}


def _frame_samples(frame: Any) -> np.ndarray:
    """An FFmpeg frame as int16 or float32 [time, channels]."""
    values = frame.to_ndarray()
    num_channels = frame.layout.nb_channels
    samples = values.T if frame.format.is_planar else values.reshape(-1, num_channels)
    if samples.dtype == np.int16 or samples.dtype.kind == "f":
        return np.ascontiguousarray(samples)
    centred = samples.astype(np.float32) - (128.0 if samples.dtype == np.uint8 else 0.0)
    return centred / FULL_SCALE[samples.dtype.str[1:]]
