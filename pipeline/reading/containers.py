"""What a file is by its first bytes, never by its name.

A decoder is only ever told to read the one container found here, or one of a list of such: a playlist
cannot make it open another file. Sources: the formats' own specifications; FFmpeg's `probe` functions.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from pipeline.reading.blocks import read_at
from pipeline.sources.recording import RecordingError

HEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Container:
    """A kind of file and who may read it."""

    name: str
    by_soundfile: bool
    plain_samples: bool = False
    ffmpeg_format: str | None  # the only demuxer FFmpeg may use; None: what it finds itself of `DEMUXERS`


WAV = Container(name="wav", by_soundfile=True, plain_samples=True, ffmpeg_format="wav")
AIFF = Container(name="aiff", by_soundfile=True, plain_samples=True, ffmpeg_format="aiff")
FLAC = Container(name="flac", by_soundfile=True, ffmpeg_format="flac")
OGG = Container(name="ogg", by_soundfile=True, ffmpeg_format="ogg")
MP3 = Container(name="mp3", by_soundfile=True, ffmpeg_format="mp3")
AAC = Container(name="aac", by_soundfile=False, ffmpeg_format="aac")
MP4 = Container(name="mp4", by_soundfile=False, ffmpeg_format="mov")
MATROSKA = Container(name="matroska", by_soundfile=False, ffmpeg_format="matroska")
ASF = Container(name="asf", by_soundfile=False, ffmpeg_format="asf")
AVI = Container(name="avi", by_soundfile=False, ffmpeg_format="avi")
FLV = Container(name="flv", by_soundfile=False, ffmpeg_format="flv")
TTA = Container(name="tta", by_soundfile=False, ffmpeg_format="tta")
REAL = Container(name="rm", by_soundfile=False, ffmpeg_format="rm")
OTHER = Container(name="other", by_soundfile=False, ffmpeg_format=None)

# What FFmpeg may find by itself in a file that has no magic number of ours. Each reads the one file that it
# is given; those that open further files or addresses (hls, dash, concat, sdp, imf, image2 …) stay out.
DEMUXERS = (
    "mpegts,mpeg,mxf,gxf,flv,live_flv,rm,wtv,dv,nut,nuv,nsv,swf,ty,pva,dhav,smjpeg,mov,matroska,asf,avi,ogg,"
    "iff,iamf,ac3,eac3,ac4,dts,dtshd,truehd,mlp,loas,aac,mp3,amr,gsm,qcp,ilbc,wv,ape,tta,tak,shn,mpc,mpc8,osq,"
    "bonk,wavarc,rka,dsf,qoa,vqf,dss,codec2,lc3,oma,aea,aa,xwma,ircam,pvf,sox,avr,paf,wav,w64,caf,au,aiff,"
    "flac,voc,nistsphere"
)

MAGIC = (
    (0, b"fLaC", FLAC),
    (0, b"OggS", OGG),
    (0, b"caff", Container(name="caf", by_soundfile=True, plain_samples=True, ffmpeg_format="caf")),
    (
        0,
        b"riff\x2e\x91\xcf\x11",
        Container(name="w64", by_soundfile=True, plain_samples=True, ffmpeg_format="w64"),
    ),
    (0, b".snd", Container(name="au", by_soundfile=True, plain_samples=True, ffmpeg_format="au")),
    (0, b"NIST_1A", Container(name="nist", by_soundfile=True, ffmpeg_format="nistsphere")),
    (0, b"Creative Voice File", Container(name="voc", by_soundfile=True, ffmpeg_format="voc")),
    (0, b"\x1aE\xdf\xa3", MATROSKA),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", ASF),
    (0, b"FLV\x01", FLV),
    (0, b"TTA1", TTA),
    (0, b".RMF", REAL),
    (0, b"#!AMR", Container(name="amr", by_soundfile=False, ffmpeg_format="amr")),
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
    head = read_at(file, after_id3(file), HEAD_BYTES)
    for offset, magic, container in MAGIC:
        if head[offset:].startswith(magic):
            return container
    if head[:4] in RIFF_TAGS and head[8:12] == b"WAVE":
        return WAV
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX", b"AMV "):
        return AVI
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return AIFF
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return AAC if head[1] & 0xF6 == 0xF0 else MP3
    _refuse(head)
    return OTHER


def _refuse(head: bytes) -> None:
    """Raise `RecordingError` for what is known to be no audio."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(PLAYLISTS) or (text.startswith(b"<?xml") and b"<mpd" in text):
        raise RecordingError("refused", "is a playlist, which is never followed")
    for magic, what in NOT_AUDIO:
        if head.startswith(magic):
            raise RecordingError("unsupported", f"is {what}, not audio")
    if not head.strip(b"\0") or len(head) < 12:
        raise RecordingError("corrupt", "holds no audio header")
    if text.startswith((b"<!doctype html", b"<html")):
        raise RecordingError("unsupported", "is an HTML page, not audio")
    if text[:256].isascii() and text[:256].decode("ascii").isprintable():
        raise RecordingError("unsupported", "is text, not audio")


def after_id3(file: io.BufferedIOBase) -> int:
    """Where the audio starts behind ID3v2 tags, whose size is four 7-bit bytes; there may be several."""
    position = 0
    for _ in range(10):
        head = read_at(file, position, 10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127
        position += 10 + size + (10 if head[5] & 0x10 else 0)
    return position
