"""What a header says of the length is checked: a file is read to its end, and what is missing is flagged."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.reading.decoding import decode, likeness
from tests.reading.made_audio import RATE, encode, vowels, write

VOICE = vowels(4)
SAMPLES = np.round(VOICE * 32767).astype("<i2").tobytes()
WHOLE, FIRST = len(SAMPLES), 2 * RATE  # bytes; a stale header counts the first second


def wav(data, *, riff=None, tag=b"RIFF", order="<"):
    head = struct.pack(order + "4sI4s4sIHHIIHH", tag, 36 + (data if riff is None else riff) & 0xFFFFFFFF,
                       b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)  # fmt: skip
    return head + struct.pack(order + "4sI", b"data", data)


def rf64(data):
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, 72 + data, data, data // 2, 0)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE") + ds64 + form + b"data" + b"\xff" * 4


def aiff(sound):
    rate = bytes.fromhex("400cfa00000000000000")  # 16000 as an 80-bit float
    common = struct.pack(">4sIhIh", b"COMM", 18, 1, max(0, sound) // 2, 16) + rate
    return (
        struct.pack(">4sI4s", b"FORM", 0, b"AIFF") + common + struct.pack(">4sIII", b"SSND", sound + 8, 0, 0)
    )


def au(size):
    return struct.pack(">4sIIIII", b".snd", 24, size, 3, RATE, 1)


def w64(size):
    guid = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    form = struct.pack("<4s12sqHHIIHH", b"fmt ", guid, 40, 1, 1, RATE, 2 * RATE, 2, 16)
    riff = bytes.fromhex("726966662e91cf11a5d628db04c10000") + struct.pack("<q", size) + b"wave" + guid
    return riff + form + struct.pack("<4s12sq", b"data", guid, size)


def big_endian(samples):
    return np.frombuffer(samples, "<i2").astype(">i2").tobytes()


def is_big(header):
    return header[:4] in (b".snd", b"FORM", b"RIFX")


def of_header(decoder, tmp_path, header, samples=SAMPLES, behind=b""):
    path = tmp_path / "a.bin"
    path.write_bytes(header + (big_endian(samples) if is_big(header) else samples) + behind)
    return decode(decoder, path)


STALE = {
    "wav_0": wav(0),
    "wav": wav(FIRST, riff=36 + WHOLE),
    "wav_both": wav(FIRST),
    "rifx": wav(FIRST, tag=b"RIFX", order=">"),
    "rf64": rf64(FIRST),
    "rf64_0": rf64(0),
    "aiff": aiff(FIRST),
    "aiff_0": aiff(-8),
    "au": au(FIRST),
    "au_0": au(0),
    "w64": w64(24 + FIRST),
}


@pytest.mark.parametrize("header", STALE.values(), ids=STALE)
def test_samples_behind_the_end_that_a_header_states_are_read(decoder, tmp_path, header):
    found = of_header(decoder, tmp_path, header)
    assert (found.duration_s, found.partial) == (4.0, False)
    assert np.abs(found.samples[0] - np.frombuffer(SAMPLES, "<i2")).max() == 0


@pytest.mark.parametrize("header", STALE.values(), ids=STALE)
def test_a_stretch_behind_the_stated_end_is_that_of_the_whole(decoder, tmp_path, header):
    of_header(decoder, tmp_path, header)
    part = decode(decoder, tmp_path / "a.bin", offset_s=2.0, max_s=1.0)
    assert np.array_equal(part.samples[0], np.frombuffer(SAMPLES, "<i2")[2 * RATE : 3 * RATE])


PIPED = {
    "ffmpeg_wav": wav(0xFFFFFFFF, riff=0xFFFFFFFF - 36),
    "arecord": wav(0x80000000),
    "arecord_old": wav(0x7FFFFF00),
    "sox_wav": wav(0x7FFFF000),
    "sox_aiff": aiff(0x7F000000),
    "ffmpeg_rf64": rf64(0),
    "au": au(0xFFFFFFFF),
    "ffmpeg_w64": w64(0x7FFFFFFFFFFFFFFF),
}


@pytest.mark.parametrize("header", PIPED.values(), ids=PIPED)
def test_what_is_written_to_a_pipe_is_a_whole_file(decoder, tmp_path, header):
    found = of_header(decoder, tmp_path, header)
    assert (found.duration_s, found.partial) == (4.0, False)


@pytest.mark.parametrize("header", [wav(WHOLE), aiff(WHOLE), au(WHOLE), rf64(WHOLE), w64(24 + WHOLE)])
def test_a_header_that_promises_more_than_there_is_is_flagged(decoder, tmp_path, header):
    assert not of_header(decoder, tmp_path, header).partial
    found = of_header(decoder, tmp_path, header, SAMPLES[: WHOLE // 2])
    assert (found.duration_s, found.partial) == (2.0, True)


@pytest.mark.parametrize(
    "behind",
    [
        b"LIST" + struct.pack("<I", 2000) + b"INFOICMT" + bytes(1992),
        b"bext" + struct.pack("<I", 601) + bytes(602) + b"cue " + struct.pack("<I", 4) + bytes(4),
        b"TAG" + bytes(125),
        b"ID3\x04\0\0\0\0\x02\x01" + bytes(257),
    ],
)
def test_what_lies_behind_the_samples_is_neither_sound_nor_damage(decoder, tmp_path, behind):
    found = of_header(decoder, tmp_path, wav(WHOLE), behind=behind)
    assert (found.duration_s, found.partial) == (4.0, False)


def test_an_empty_recording_with_a_comment_is_empty(decoder, tmp_path):
    comment = b"LIST" + struct.pack("<I", 100) + bytes(100)
    assert of_header(decoder, tmp_path, wav(0), b"", comment).duration_s == 0


def flac(path, voice, total=None):
    content = bytearray(write(path, voice).read_bytes())
    if total is not None:
        content[21:26] = bytes([content[21] & 0xF0]) + total.to_bytes(4, "big")
        content[26:42] = bytes(16)  # the sum over samples that nobody counted
    return bytes(content)


@pytest.mark.parametrize("total", [0, RATE, 3 * RATE])
def test_a_flac_is_read_beyond_a_total_that_is_too_small(decoder, tmp_path, total):
    (tmp_path / "b.flac").write_bytes(flac(tmp_path / "a.flac", VOICE, total))
    found = decode(decoder, tmp_path / "b.flac")
    assert (found.duration_s, found.partial) == (4.0, False)
    part = decode(decoder, tmp_path / "b.flac", offset_s=3.0)
    assert np.array_equal(part.samples[0], found.samples[0, 3 * RATE :])


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_recordings_of_one_length_that_are_joined_are_all_read(decoder, tmp_path, name):
    first, second = (write(tmp_path / f"{n}{name}", vowels(4, seed=n)).read_bytes() for n in (1, 2))
    (tmp_path / name).write_bytes(first + second)
    found = decode(decoder, tmp_path / name)
    assert found.duration_s == pytest.approx(8, abs=0.2)
    end = decode(decoder, tmp_path / name, offset_s=5.0, max_s=2.0).samples[0]
    assert likeness(end[RATE // 2 :], found.samples[0, 5 * RATE + RATE // 2 : 7 * RATE]) > 0.99


@pytest.mark.parametrize("header", [wav(WHOLE), aiff(WHOLE), rf64(WHOLE)], ids=["wav", "aiff", "rf64"])
def test_files_of_plain_samples_that_are_joined_are_all_read(decoder, tmp_path, header):
    of_header(decoder, tmp_path, header)
    content = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "b.bin").write_bytes(content + content)
    found = decode(decoder, tmp_path / "b.bin")
    assert found.duration_s == pytest.approx(8, abs=0.01)
    assert likeness(found.samples[0, -4 * RATE :], VOICE) > 0.99


SINGLE = [
    *(("a.m4a", "aac", RATE), ("a.wma", "wmav2", RATE), ("a.avi", "pcm_s16le", RATE)),
    *(("a.flv", "libmp3lame", 44_100), ("a.tta", "tta", RATE), ("a.rm", "real_144", 8000)),
]


@pytest.mark.parametrize(("name", "codec", "rate"), SINGLE)
def test_a_second_file_that_nobody_reads_is_flagged(decoder, tmp_path, name, codec, rate):
    how = {"bit_rate": 32_000} if codec == "wmav2" else {}
    path = encode(tmp_path / name, vowels(4, rate=rate), codec, rate, **how)
    assert not decode(decoder, path).partial
    path.write_bytes(2 * path.read_bytes())
    found = decode(decoder, path)
    assert found.partial or found.duration_s > 7.5


def frame_bytes(header):
    """The length of a frame of MPEG-2 layer 3 at 16 kHz by its header."""
    kbits = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160][header[2] >> 4]
    return 72 * kbits * 1000 // RATE + (header[2] >> 1 & 1)


def variable_mp3(path, voice):
    write(path, voice, bitrate_mode="VARIABLE", compression_level=0.9)
    return path.read_bytes()


def test_an_mp3_of_variable_rate_that_counts_no_frames_is_read_to_its_end(decoder, tmp_path):
    loud_first = np.concatenate([vowels(3), 0.001 * vowels(40, seed=1)])
    content = variable_mp3(tmp_path / "a.mp3", loud_first)
    (tmp_path / "b.mp3").write_bytes(content[frame_bytes(content) :])  # the first frame holds the count
    found = decode(decoder, tmp_path / "b.mp3")
    assert found.duration_s == pytest.approx(43, abs=0.2)
    assert not found.partial
    assert decode(decoder, tmp_path / "b.mp3", offset_s=40.0, max_s=2.0).duration_s == 2.0


def test_a_guess_that_is_too_long_flags_nothing(decoder, tmp_path):
    content = variable_mp3(tmp_path / "a.mp3", np.concatenate([np.zeros(10 * RATE, np.float32), vowels(10)]))
    (tmp_path / "b.mp3").write_bytes(content[frame_bytes(content) :])
    found = decode(decoder, tmp_path / "b.mp3")
    assert (found.duration_s, found.partial) == (pytest.approx(20, abs=0.2), False)


def test_an_mp3_that_counts_too_few_frames_is_read_to_its_end(decoder, tmp_path):
    content = bytearray(variable_mp3(tmp_path / "a.mp3", vowels(20)))
    at = max(content.find(b"Xing"), content.find(b"Info")) + 8
    content[at : at + 4] = struct.pack(">I", struct.unpack(">I", content[at : at + 4])[0] * 45 // 100)
    (tmp_path / "b.mp3").write_bytes(content)
    found = decode(decoder, tmp_path / "b.mp3")
    assert found.duration_s == pytest.approx(20, abs=0.2)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mka", "aac"), ("a.webm", "libopus"), ("a.avi", "pcm_s16le"), ("a.wma", "wmav2")]
)
def test_a_container_cut_in_half_is_flagged(decoder, tmp_path, name, codec):
    rate = 48_000 if codec == "libopus" else RATE
    how = {"bit_rate": 32_000} if codec == "wmav2" else {}
    path = encode(tmp_path / name, vowels(10, rate=rate), codec, rate, **how)
    assert not decode(decoder, path).partial
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = decode(decoder, path)
    assert found.partial
    assert 3 < found.duration_s < 7
