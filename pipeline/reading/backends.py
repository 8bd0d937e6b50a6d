"""The two decoders, soundfile and PyAV, as streams of blocks of float samples.

Both read a file object that Python opened, and PyAV is told the container: neither can follow a name.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import one_line
from pipeline.reading.containers import OGG, Container, OggLink, flac_total_samples, ogg_links
from pipeline.sources.recording import RecordingError

BLOCK_FRAMES = 65_536
MAX_BLOCK_VALUES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive samples, [time, channels]: int16, or float with full scale at 1."""

    samples: np.ndarray
    rate: int


@dataclass(frozen=True, kw_only=True)
class Stream:
    """An opened recording whose blocks start at `start_s` seconds."""

    decoded_by: str
    declared_s: float | None
    start_s: float
    blocks: Iterator[Block]


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


def open_soundfile(fd: int, start: int, length: int, container: Container, offset_s: float) -> Stream:
    """Open by libsndfile, at `offset_s` where it can seek. Raises `RecordingError`."""
    if container is OGG:
        links = ogg_links(open_range(fd, start, length), length)
        if len(links) > 1:
            return _chained(fd, start, links)
    if container.name == "flac" and flac_total_samples(open_range(fd, start, length)) == 0:
        raise RecordingError("unsupported", "libsndfile reads no FLAC of unknown length")
    sound = _sound_file(fd, start, length)
    if container is OGG and not sound.frames:
        raise RecordingError("corrupt", "libsndfile finds no samples")
    rate = sound.samplerate
    declared_s = sound.frames / rate if 0 < sound.frames < 1 << 62 else None
    start_frame = min(round(offset_s * rate), sound.frames)
    if start_frame:
        _guarded(sound.seek, start_frame)
    return Stream(
        decoded_by="soundfile",
        declared_s=declared_s,
        start_s=start_frame / rate,
        blocks=_sound_blocks(sound),
    )


def _sound_file(fd: int, start: int, length: int) -> Any:
    import soundfile

    sound = _guarded(soundfile.SoundFile, open_range(fd, start, length))
    if sound.samplerate <= 0 or sound.channels <= 0:
        raise RecordingError("corrupt", "declares no rate or no channels")
    return sound


def _guarded(call: Any, *arguments: Any) -> Any:
    """Call libsndfile; its errors become `RecordingError`."""
    import soundfile

    try:
        return call(*arguments)
    except soundfile.LibsndfileError as error:
        raise RecordingError("corrupt", f"libsndfile: {error.error_string}") from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise RecordingError("corrupt", f"libsndfile: {error}") from error


def _sound_blocks(sound: Any) -> Iterator[Block]:
    """Blocks as int16 where nothing is lost by it, else as float32."""
    dtype = "int16" if sound.subtype in ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW") else "float32"
    frames = max(1, min(BLOCK_FRAMES, MAX_BLOCK_VALUES // sound.channels))
    while True:
        samples = _guarded(lambda: sound.read(frames, dtype=dtype, always_2d=True))
        if not len(samples):
            return
        yield Block(samples=samples, rate=sound.samplerate)


def _chained(fd: int, start: int, links: list[OggLink]) -> Stream:
    """The streams of a chained Ogg one after the other: libsndfile alone would stop after the first."""

    def blocks() -> Iterator[Block]:
        for link in links:
            yield from _sound_blocks(_sound_file(fd, start + link.start, link.end - link.start))

    return Stream(decoded_by="soundfile", declared_s=None, start_s=0.0, blocks=blocks())


class PyavReader:
    """A recording opened by FFmpeg through PyAV; `num_broken` counts packets that could not be decoded."""

    def __init__(self, fd: int, start: int, length: int, container: Container) -> None:
        """Open the audio stream. Raises `RecordingError`."""
        import av

        self._errors = (av.FFmpegError, ValueError, IndexError, NotImplementedError)
        self.num_broken = 0
        try:
            self._file = av.open(
                open_range(fd, start, length),
                format=container.ffmpeg_format,
                metadata_errors="ignore",
                options={"protocol_whitelist": "none", "enable_drefs": "0"},
            )
        except self._errors as error:
            raise RecordingError("corrupt", f"FFmpeg: {one_line(error)}") from error
        if not self._file.streams.audio:
            raise RecordingError("no_audio" if self._file.streams.video else "corrupt", "has no audio stream")
        self._stream = self._file.streams.audio[0]
        if self._stream.codec_context is None:
            raise RecordingError("unsupported", "FFmpeg: has no decoder for its audio")
        self._stream.thread_type = "NONE"
        self._declares = container.ffmpeg_declares

    def stream(self) -> Stream:
        """The recording from its start: FFmpeg's seeking is not exact in every container."""
        length = self._stream.duration
        known = self._declares and length is not None and self._stream.time_base is not None
        return Stream(
            decoded_by="pyav",
            declared_s=float(length * self._stream.time_base) if known else None,
            start_s=0.0,
            blocks=self._blocks(),
        )

    def _blocks(self) -> Iterator[Block]:
        num_frames = 0
        for packet in self._packets():
            try:
                frames = packet.decode()
            except self._errors as error:
                self.num_broken += 1
                last = error
                continue
            for frame in frames:
                num_frames += 1
                yield Block(samples=_frame_samples(frame), rate=frame.sample_rate)
        if not num_frames and self.num_broken:
            raise RecordingError("corrupt", f"FFmpeg: {one_line(last)}")

    def _packets(self) -> Iterator[Any]:
        """Packets until the end, or until the container breaks off."""
        packets = self._file.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self._errors:
                self.num_broken += 1
                return
            yield packet


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
