"""Recordings read by libsndfile, where what it reads is known to be all of them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

from pipeline.reading.blocks import Block, Stream, open_range
from pipeline.reading.containers import FLAC, MP3, OGG, Container
from pipeline.reading.lengths import (
    OggLink,
    audio_end,
    has_several_streams,
    is_one_flac,
    mp3_states_length,
    ogg_links,
)
from pipeline.reading.sample_chunks import SampleBytes, sample_bytes
from pipeline.sources.recording import RecordingError

BLOCK_FRAMES = 65_536
MAX_BLOCK_VALUES = 1 << 20
UNREAD_BYTES = 1500  # about a frame of MP3 that a tag or a splitter left
RAW_BYTES = {
    **{"PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1},
    **{"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8},
}


def open_soundfile(
    fd: int, start: int, length: int, container: Container, offset_s: float, max_s: float = math.inf
) -> Stream:
    """Open by libsndfile at `offset_s`, to read at most `max_s` of it. Raises `RecordingError`."""
    found = sample_bytes(open_range(fd, start, length), length) if container.plain_samples else None
    is_longer = found is not None and found.goes_on
    file = open_range(fd, start, found.stated_end or length if found is not None and is_longer else length)
    if container is OGG:
        if has_several_streams(file):
            raise RecordingError("unsupported", "libsndfile reads one of several streams")
        links = ogg_links(file, length)
        if len(links) > 1:
            return _chained(fd, start, links)
    if container is FLAC and not is_one_flac(file):
        raise RecordingError("unsupported", "libsndfile reads no FLAC of unknown length or of several")
    file.seek(0)
    sound = _sound_file(file)
    if container is OGG and not sound.frames:
        raise RecordingError("corrupt", "libsndfile finds no samples")
    if container in (FLAC, MP3) and (offset_s or sound.frames > max_s * sound.samplerate):
        _check_end(open_range(fd, start, length), length)
    if found is not None and is_longer:
        sound = _to_the_end(sound, found, fd, start, length)
    rate = sound.samplerate
    knows = container is not MP3 or mp3_states_length(open_range(fd, start, length))
    declared_s = sound.frames / rate if knows and 0 < sound.frames < 1 << 62 else None
    start_frame = min(round(offset_s * rate), sound.frames)
    if start_frame:
        _guarded(sound.seek, start_frame)
    return Stream(
        decoded_by="soundfile",
        declared_s=declared_s,
        start_s=start_frame / rate,
        blocks=_to_the_last(sound, file, length) if container in (FLAC, MP3) else _sound_blocks(sound),
    )


def _to_the_last(sound: Any, file: io.BufferedIOBase, length: int) -> Iterator[Block]:
    """All blocks. Raises `RecordingError` behind them where the file goes on."""
    yield from _sound_blocks(sound)
    _refuse_unread(file, length)


def _check_end(file: io.BufferedIOBase, length: int) -> None:
    """Raise `RecordingError` where libsndfile would stop before the file does, for one that is read in parts.

    In a reader of its own: after a seek libsndfile fails on some files that it reads otherwise.
    """
    sound = _sound_file(file)
    try:
        _guarded(sound.seek, max(0, sound.frames - 1))
        _guarded(sound.read, 1)
    except RecordingError:
        return  # there is less than it expects: it reads to where that ends
    _refuse_unread(file, length)


def _refuse_unread(file: io.BufferedIOBase, length: int) -> None:
    """libsndfile takes the length of an MP3 from its first frame, and believes a count that is too small."""
    read_to = file.tell()
    if audio_end(file, length) - read_to > UNREAD_BYTES:
        raise RecordingError("unsupported", "libsndfile stops before the end")


def _to_the_end(sound: Any, found: SampleBytes, fd: int, start: int, length: int) -> Any:
    """The same samples without their header, which says that they end before the file does."""
    import soundfile

    num_bytes = RAW_BYTES.get(sound.subtype, 0) * sound.channels
    if not num_bytes:
        raise RecordingError("unsupported", "libsndfile stops where the header says")
    if found.start + (sound.frames + 1) * num_bytes > length:
        return sound
    big = "BIG" if sound.format in ("AIFF", "AU", "CAF") else "LITTLE"
    return _guarded(
        lambda: soundfile.SoundFile(
            open_range(fd, start + found.start, length - found.start),
            samplerate=sound.samplerate,
            channels=sound.channels,
            subtype=sound.subtype,
            endian=sound.endian if sound.endian != "FILE" else big,
            format="RAW",
        )
    )


def _sound_file(file: io.BufferedIOBase) -> Any:
    import soundfile

    sound = _guarded(soundfile.SoundFile, file)
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
            yield from _sound_blocks(_sound_file(open_range(fd, start + link.start, link.end - link.start)))

    return Stream(decoded_by="soundfile", declared_s=None, start_s=0.0, blocks=blocks())
