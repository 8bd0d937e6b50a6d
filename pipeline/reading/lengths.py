"""What a compressed file says of its own length, and whether that is true.

Sources: RFC 9639 (FLAC), RFC 3533 (Ogg), RFC 9559 (Matroska), ISO 14496-12 (MP4), Microsoft's AVI and ASF
specifications, the Xing and VBRI headers as LAME and Fraunhofer write them.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from pipeline.reading.blocks import read_at
from pipeline.reading.containers import ASF, AVI, FLV, MATROSKA, MP4, OGG, REAL, TTA, Container, after_id3
from pipeline.reading.sample_chunks import sample_bytes

FLAC_HEADER = b"fLaC\0\0\0\x22"  # and the head of STREAMINFO, which comes first
SEGMENT = b"\x18\x53\x80\x67"  # of Matroska
FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # of ASF
HEADER_BYTES = {FLV: 9, TTA: 6, REAL: 8}  # the same in files of one kind, and nowhere else in them
SEARCH_BYTES = 1 << 20


def is_cut_short(file: io.BufferedIOBase, length: int, container: Container) -> bool:
    """Whether bytes that the header promises are not there, or a second file follows that is not read.

    No decoder would say anything of it.
    """
    if container is OGG:
        return not ogg_links(file, length)[-1].closed
    if container.plain_samples:
        found = sample_bytes(file, length)
        return found is not None and (found.stated_end or 0) > length
    if container in HEADER_BYTES:
        num_bytes = HEADER_BYTES[container]
        return _holds(file, read_at(file, 0, num_bytes), num_bytes)
    ends = {MATROSKA: _matroska_end, MP4: _mp4_end, AVI: _avi_end, ASF: _asf_end}
    return container in ends and ends[container](file, length) > length


def _matroska_end(file: io.BufferedIOBase, _length: int) -> int:
    """Where the segment ends; 0: it does not say."""
    head = read_at(file, 0, 4096)
    at = head.find(SEGMENT) + len(SEGMENT)
    if at < len(SEGMENT) or at + 8 > len(head):
        return 0
    num_bytes = 9 - head[at].bit_length()  # the leading zeros of its first byte tell how long a number is
    number = int.from_bytes(head[at : at + num_bytes], "big") & (1 << 7 * num_bytes) - 1
    return 0 if number == (1 << 7 * num_bytes) - 1 else at + num_bytes + number


def _mp4_end(file: io.BufferedIOBase, length: int) -> int:
    """Where the last box ends that begins inside the file; beyond it where a second file is joined."""
    at, num_indexes = 0, 0
    while at + 8 <= length:
        size, kind = struct.unpack(">I4s", read_at(file, at, 8))
        if size == 1:
            size = int.from_bytes(read_at(file, at + 8, 8), "big")
        if size < 8 or not kind.isalnum():  # 0: to the end of the file
            return 0
        num_indexes += kind == b"moov"
        at += size
    return at if num_indexes < 2 else length + 1


def _avi_end(file: io.BufferedIOBase, length: int) -> int:
    ends = int.from_bytes(read_at(file, 4, 4), "little") + 8
    is_joined = read_at(file, ends, 12)[8:] == b"AVI "
    return 0 if ends >= 0xFFFF0000 else length + 1 if is_joined else ends


def _asf_end(file: io.BufferedIOBase, length: int) -> int:
    """The size of the file by its properties, unless it was broadcast."""
    head = read_at(file, 0, 1 << 16)
    at = head.find(FILE_PROPERTIES)
    if at < 0 or len(head) < at + 92:
        return 0
    size, flags = struct.unpack("<Q", head[at + 40 : at + 48])[0], head[at + 88]
    is_joined = 0 < size < length and read_at(file, size, 8) == head[:8]
    return 0 if flags & 1 else length + 1 if is_joined else size


def is_one_flac(file: io.BufferedIOBase) -> bool:
    """Whether a FLAC says how long it is and no second one is joined to it: libsndfile reads only such."""
    first = after_id3(file)
    info = read_at(file, first, 26)
    total = int.from_bytes(info[21:26], "big") & ((1 << 36) - 1) if len(info) == 26 else 0
    return total > 0 and not _holds(file, FLAC_HEADER, first + len(FLAC_HEADER))


def _holds(file: io.BufferedIOBase, wanted: bytes, start: int) -> bool:
    """Whether some bytes occur in a file from a place on."""
    file.seek(start)
    rest = b""
    while data := file.read(SEARCH_BYTES):
        if wanted in rest + data[: len(wanted)] or wanted in data:
            return True
        rest = data[-len(wanted) :]
    return False


def mp3_states_length(file: io.BufferedIOBase) -> bool:
    """Whether the first frame of an MP3 says how many there are; else any length is a guess."""
    head = read_at(file, after_id3(file), 256)
    for mark in (b"Xing", b"Info"):
        at = head.find(mark)
        if 0 <= at <= len(head) - 8:
            return bool(head[at + 7] & 1)
    return b"VBRI" in head


def audio_end(file: io.BufferedIOBase, length: int) -> int:
    """Where the audio of an MP3 or FLAC ends in front of tags (ID3v1, APEv2)."""
    if read_at(file, length - 128, 3) == b"TAG" and length > 128:
        length -= 128
    footer = read_at(file, length - 32, 32) if length > 32 else b""
    if footer.startswith(b"APETAGEX"):
        length -= struct.unpack("<I", footer[12:16])[0] + 32
    return length


@dataclass(frozen=True, kw_only=True)
class OggLink:
    """One logical stream of a (possibly chained) Ogg file: bytes `start` to `end`."""

    start: int
    end: int
    closed: bool  # its last page says that it is the last


def has_several_streams(file: io.BufferedIOBase) -> bool:
    """Whether an Ogg file begins more than one logical stream at once."""
    first = read_at(file, 0, 27 + 255)
    if len(first) < 27:
        return False
    second = 27 + first[26] + sum(first[27 : 27 + first[26]])
    header = read_at(file, second, 6)
    return header[:4] == b"OggS" and bool(header[5] & 2)


def ogg_links(file: io.BufferedIOBase, length: int) -> list[OggLink]:
    """The chained streams of an Ogg file, found by hopping over its pages (RFC 3533, section 6)."""
    starts, position, closed, in_headers = [0], 0, False, True
    closes = []
    while position < length:
        header = read_at(file, position, 27 + 255)
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
