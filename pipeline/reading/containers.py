"""What a file is by its first bytes, never by its name, and what its own header promises.

A decoder is only ever told to read the one container found here, so a text playlist cannot make it open
another file. Sources: the formats' own specifications; FFmpeg's `probe` functions for the magic numbers.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from pipeline.sources.recording import RecordingError

HEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Container:
    """A kind of file and who may read it."""

    name: str
    by_soundfile: bool
    ffmpeg_format: str | None  # the only demuxer FFmpeg may use
    ffmpeg_declares: bool = True  # false: FFmpeg's duration is a guess from the bit rate


WAV = Container(name="wav", by_soundfile=True, ffmpeg_format="wav")
AIFF = Container(name="aiff", by_soundfile=True, ffmpeg_format="aiff")
FLAC = Container(name="flac", by_soundfile=True, ffmpeg_format="flac")
OGG = Container(name="ogg", by_soundfile=True, ffmpeg_format="ogg")
MP3 = Container(name="mp3", by_soundfile=True, ffmpeg_format="mp3", ffmpeg_declares=False)
AAC = Container(name="aac", by_soundfile=False, ffmpeg_format="aac", ffmpeg_declares=False)
MP4 = Container(name="mp4", by_soundfile=False, ffmpeg_format="mov")

MAGIC = (
    (0, b"fLaC", FLAC),
    (0, b"OggS", OGG),
    (0, b"caff", Container(name="caf", by_soundfile=True, ffmpeg_format="caf")),
    (0, b"riff\x2e\x91\xcf\x11", Container(name="w64", by_soundfile=True, ffmpeg_format="w64")),
    (0, b".snd", Container(name="au", by_soundfile=True, ffmpeg_format="au")),
    (0, b"NIST_1A", Container(name="nist", by_soundfile=True, ffmpeg_format="nistsphere")),
    (0, b"Creative Voice File", Container(name="voc", by_soundfile=True, ffmpeg_format="voc")),
    (0, b"\x1aE\xdf\xa3", Container(name="matroska", by_soundfile=False, ffmpeg_format="matroska")),
    (
        0,
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        Container(name="asf", by_soundfile=False, ffmpeg_format="asf", ffmpeg_declares=False),
    ),
    (0, b"#!AMR", Container(name="amr", by_soundfile=False, ffmpeg_format="amr", ffmpeg_declares=False)),
    *((4, box, MP4) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
)
RIFF_TAGS = (b"RIFF", b"RIFX", b"RF64", b"BW64")
PLAYLISTS = (b"#extm3u", b"[playlist]", b"ffconcat", b"<asx", b"v=0\r\no=", b"v=0\no=", b"<mpd", b"<smil")
NOT_AUDIO = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x7fELF", "a program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF"),
    (b"version https://git-lfs", "a Git LFS pointer (the file itself was not fetched)"),
    (b"PAR1", "a Parquet file"),
)


def sniff(file: io.BufferedIOBase, length: int) -> Container:
    """Find the container of a file of `length` bytes. Raises `RecordingError` if it is none read here."""
    if length == 0:
        raise RecordingError("corrupt", "the file is empty")
    head = _read_at(file, _after_id3(file), HEAD_BYTES)
    for offset, magic, container in MAGIC:
        if head[offset:].startswith(magic):
            return container
    if head[:4] in RIFF_TAGS and head[8:12] == b"WAVE":
        return WAV
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return AIFF
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return AAC if head[1] & 0xF6 == 0xF0 else MP3
    raise _unknown(head)


def _unknown(head: bytes) -> RecordingError:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(PLAYLISTS) or (text.startswith(b"<?xml") and b"<mpd" in text):
        return RecordingError("refused", "is a playlist, which is never followed")
    for magic, what in NOT_AUDIO:
        if head.startswith(magic):
            return RecordingError("unsupported", f"is {what}, not audio")
    if not head.strip(b"\0") or len(head) < 12:
        return RecordingError("corrupt", "holds no audio header")
    if text.startswith((b"<!doctype html", b"<html")):
        return RecordingError("unsupported", "is an HTML page, not audio")
    if text[:256].isascii() and text[:256].decode("ascii").isprintable():
        return RecordingError("unsupported", "is text, not audio")
    return RecordingError("unsupported", "is no audio format that is read here")


def _read_at(file: io.BufferedIOBase, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _after_id3(file: io.BufferedIOBase) -> int:
    """Where the audio starts behind ID3v2 tags, whose size is four 7-bit bytes; there may be several."""
    position = 0
    for _ in range(10):
        head = _read_at(file, position, 10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127
        position += 10 + size + (10 if head[5] & 0x10 else 0)
    return position


def is_cut_short(file: io.BufferedIOBase, length: int, container: Container) -> bool:
    """Whether the header promises bytes that are not there: both decoders would say nothing of it."""
    if container is WAV:
        return _wav_promises(file) > length
    if container is OGG:
        return not ogg_links(file, length)[-1].closed
    return False


UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # what writers leave in a header that they never came back to


def _wav_promises(file: io.BufferedIOBase) -> int:
    """Where the `data` chunk of a RIFF file should end; 0 if the header does not say."""
    order = ">" if _read_at(file, 0, 4) == b"RIFX" else "<"
    position = 12
    for _ in range(1000):
        header = _read_at(file, position, 8)
        if len(header) < 8:
            return 0
        tag, size = struct.unpack(f"{order}4sI", header)
        if tag == b"data":
            return 0 if size in UNKNOWN_SIZES else position + 8 + size
        position += 8 + size + size % 2
    return 0


def flac_total_samples(file: io.BufferedIOBase) -> int:
    """The number of samples that STREAMINFO declares; 0 means unknown, which is legal."""
    info = _read_at(file, _after_id3(file), 26)
    return int.from_bytes(info[21:26], "big") & ((1 << 36) - 1) if len(info) == 26 else 0


@dataclass(frozen=True, kw_only=True)
class OggLink:
    """One logical stream of a (possibly chained) Ogg file: bytes `start` to `end`."""

    start: int
    end: int
    closed: bool  # its last page says that it is the last


def ogg_links(file: io.BufferedIOBase, length: int) -> list[OggLink]:
    """The chained streams of an Ogg file, found by hopping over its pages (RFC 3533, section 6)."""
    starts, position, closed, in_headers = [0], 0, False, True
    closes = []
    while position < length:
        header = _read_at(file, position, 27 + 255)
        if len(header) < 27 or header[:4] != b"OggS":
            break
        num_segments = header[26]
        begins, ends = bool(header[5] & 2), bool(header[5] & 4)
        if begins and not in_headers:
            starts.append(position)
            closes.append(closed)
        in_headers, closed = begins, ends
        position += 27 + num_segments + sum(header[27 : 27 + num_segments])
    closes.append(closed and position <= length)
    ends_at = [*starts[1:], length]
    return [
        OggLink(start=start, end=end, closed=close)
        for start, end, close in zip(starts, ends_at, closes, strict=True)
    ]
