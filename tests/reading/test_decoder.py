"""Any audio comes out as 16 kHz int16, and whatever is no audio comes out as a stated error."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pipeline.reading.audio import DecodeLimits
from pipeline.reading.decoder import AudioDecoder
from pipeline.sources.opening import OpenRecording
from tests.reading.decoding import decode, error_of, likeness, opened
from tests.reading.made_audio import RATE, encode, vowels, wav_bytes, write


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]
)
def test_every_kind_of_wav_is_read(decoder, tmp_path, subtype):
    voice = vowels(2)
    found = decode(decoder, write(tmp_path / "a.wav", voice, subtype=subtype))
    assert found.samples.shape == (1, 2 * RATE)
    assert found.samples.dtype == np.int16
    assert likeness(found.samples[0], voice) > 0.99
    assert (found.decoded_by, found.partial, found.ended) == ("soundfile", False, True)


def test_samples_stay_as_they_are_when_other_recordings_are_decoded(tmp_path):
    lengths_s = (3, 1, 200, 2, 5)
    paths = [
        write(tmp_path / f"{n}.wav", vowels(1 + n)[: RATE // 2].repeat(2 * s))
        for n, s in enumerate(lengths_s)
    ]
    broken = tmp_path / "b.wav"
    broken.write_bytes(wav_bytes(vowels(1))[:30])
    with AudioDecoder() as decoder:
        together = [decode(decoder, path).samples for path in paths]
        assert error_of(decoder, broken) == "corrupt"
        again = decode(decoder, paths[0]).samples
    for path, found, seconds in zip(paths, together, lengths_s, strict=True):
        assert found.shape == (1, seconds * RATE)
        with AudioDecoder() as alone:
            assert np.array_equal(decode(alone, path).samples, found)
    assert np.array_equal(again, together[0])


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.aiff", "a.caf", "a.w64", "a.au"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_every_container_is_read_at_any_rate(decoder, tmp_path, name, rate):
    voice = vowels(3, rate=rate)
    found = decode(decoder, write(tmp_path / name, voice, rate))
    assert found.duration_s == pytest.approx(3, abs=0.1)
    assert found.decoded_by == "soundfile"
    assert (
        likeness(found.samples[0], decode(decoder, write(tmp_path / "b.wav", voice, rate)).samples[0]) > 0.95
    )


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.aac", "aac"), ("a.mka", "aac")])
def test_what_libsndfile_cannot_read_is_read_by_pyav(decoder, tmp_path, name, codec):
    voice = vowels(3)
    found = decode(decoder, encode(tmp_path / name, voice, codec))
    assert (found.decoded_by, found.partial) == ("pyav", False)
    assert found.duration_s == pytest.approx(3, abs=0.2)
    assert max(likeness(found.samples[0][lag:], voice) for lag in range(0, 2200, 16)) > 0.8


def test_channels_are_mixed_to_their_mean(decoder, tmp_path):
    left, right = vowels(1, seed=1), vowels(1, seed=2)
    found = decode(decoder, write(tmp_path / "a.wav", np.stack([left, right], 1)))
    mean = (np.round(left * 32767) + np.round(right * 32767)) / 2
    assert np.abs(found.samples[0] - mean).max() <= 2


def test_channels_can_be_kept_apart(decoder, tmp_path):
    left, right = vowels(1, seed=1), vowels(1, seed=2)
    path = write(tmp_path / "a.flac", np.stack([left, right], 1), 44_100)
    found = decode(decoder, path, channels="split")
    alone = [decode(decoder, path, channel=channel).samples[0] for channel in (0, 1)]
    assert found.samples.shape[0] == 2
    assert np.array_equal(found.samples, np.stack(alone))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_a_stretch_is_the_same_as_a_slice_of_the_whole(decoder, tmp_path, name, rate):
    path = write(tmp_path / name, vowels(20, rate=rate), rate)
    whole = decode(decoder, path).samples[0]
    stretch = decode(decoder, path, offset_s=7.0, max_s=5.0)
    assert stretch.samples.shape == (1, 5 * RATE)
    assert not stretch.ended
    inner = slice(RATE // 2, -RATE // 2)  # a lossy codec and the resampler need a run-up
    expected = whole[7 * RATE : 12 * RATE]
    assert np.abs(stretch.samples[0][inner].astype(int) - expected[inner]).max() <= 2


def test_a_stretch_by_pyav_is_the_same_as_a_slice_of_the_whole(decoder, tmp_path):
    path = encode(tmp_path / "a.m4a", vowels(20), "aac")
    whole = decode(decoder, path).samples[0]
    stretch = decode(decoder, path, offset_s=7.0, max_s=5.0).samples[0]
    inner = slice(RATE // 2, -RATE // 2)
    assert np.abs(stretch[inner].astype(int) - whole[7 * RATE : 12 * RATE][inner]).max() <= 2


def test_a_stretch_behind_the_end_is_empty(decoder, tmp_path):
    found = decode(decoder, write(tmp_path / "a.wav", vowels(1)), offset_s=5.0)
    assert (found.duration_s, found.ended, found.partial) == (0.0, True, False)


def test_a_clip_is_a_recording_of_its_own(decoder, tmp_path):
    path = write(tmp_path / "a.wav", vowels(10))
    whole = decode(decoder, path).samples[0]
    clip = decode(decoder, path, from_s=2.0, to_s=5.5)
    assert np.array_equal(clip.samples[0], whole[2 * RATE : round(5.5 * RATE)])
    assert (clip.ended, clip.partial, clip.declared_s) == (True, False, 3.5)
    part = decode(decoder, path, from_s=2.0, to_s=5.5, offset_s=1.0, max_s=1.0)
    assert np.array_equal(part.samples[0], whole[3 * RATE : 4 * RATE])
    assert not part.ended
    assert decode(decoder, path, from_s=8.0, to_s=12.0).partial


def test_a_range_of_a_file_is_a_recording(decoder, tmp_path):
    content = wav_bytes(vowels(1))
    path = tmp_path / "many.bin"
    path.write_bytes(b"x" * 1000 + content + b"y" * 1000)
    with opened(path) as whole:
        source = OpenRecording(name="member", fd=whole.fd, start=1000, length=len(content))
        assert decoder.decode(source).duration_s == 1.0


def test_the_bytes_decide_and_not_the_name(decoder, tmp_path):
    path = write(tmp_path / "a.flac", vowels(1)).rename(tmp_path / "a.mp3")
    assert decode(decoder, path).duration_s == 1.0


def test_a_truncated_wav_is_flagged(decoder, tmp_path):
    content = wav_bytes(vowels(4))
    (tmp_path / "a.wav").write_bytes(content[: len(content) // 2])
    found = decode(decoder, tmp_path / "a.wav")
    assert found.partial
    assert found.duration_s == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_streamed_wav_of_unknown_size_is_not_flagged(decoder, tmp_path, size):
    content = bytearray(wav_bytes(vowels(1)))
    content[4:8] = struct.pack("<I", size)
    content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(content)
    found = decode(decoder, tmp_path / "a.wav")
    assert (found.duration_s, found.partial) == (1.0, False)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg"])
def test_a_truncated_file_is_decoded_as_far_as_it_goes_and_flagged(decoder, tmp_path, name):
    path = write(tmp_path / name, vowels(20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = decode(decoder, path)
    assert found.partial
    assert 5 < found.duration_s < 15


def test_a_damaged_flac_is_read_by_pyav_and_flagged(decoder, tmp_path):
    path = write(tmp_path / "a.flac", vowels(20))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(content)
    found = decode(decoder, path)
    assert (found.decoded_by, found.partial) == ("pyav", True)
    assert found.duration_s > 15


def test_a_flac_of_unknown_length_is_whole(decoder, tmp_path):
    path = write(tmp_path / "a.flac", vowels(3))
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    found = decode(decoder, path)
    assert (found.duration_s, found.partial, found.declared_s) == (3.0, False, None)


def test_every_stream_of_a_chained_ogg_is_read(decoder, tmp_path):
    first, second = (write(tmp_path / f"{i}.ogg", vowels(2, seed=i)) for i in (1, 2))
    (tmp_path / "both.ogg").write_bytes(first.read_bytes() + second.read_bytes())
    found = decode(decoder, tmp_path / "both.ogg")
    assert found.duration_s == pytest.approx(4, abs=0.05)
    assert not found.partial


def test_samples_that_are_no_numbers_count_as_zero(decoder, tmp_path):
    voice = vowels(2).copy()
    voice[5000:5010] = np.nan
    voice[6000] = np.inf
    found = decode(decoder, write(tmp_path / "a.wav", voice, subtype="FLOAT"))
    assert found.num_bad_samples == 11
    assert not found.samples[0, 5000:5010].any()
    assert found.duration_s == 2.0


def test_a_recording_of_no_numbers_is_an_error(decoder, tmp_path):
    path = write(tmp_path / "a.wav", np.full(RATE, np.nan, np.float32), subtype="FLOAT")
    assert error_of(decoder, path) == "bad_samples"


@pytest.mark.parametrize(
    ("content", "error_type"),
    [
        (b"", "corrupt"),
        (bytes(5000), "corrupt"),
        (b"RIFF\x00\x00", "corrupt"),
        (b"fLaC" + bytes(100), "corrupt"),
        (b"PK\x03\x04" + bytes(100), "unsupported"),
        (b"<!DOCTYPE html><html>not found</html>", "unsupported"),
        (b'{"error": "no such key"}', "unsupported"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "refused"),
        (b"ffconcat version 1.0\nfile other.wav\n", "refused"),
        (b"[playlist]\nFile1=other.wav\n", "refused"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", "refused"),
    ],
)
def test_what_is_no_audio_is_a_stated_error(decoder, tmp_path, content, error_type):
    (tmp_path / "a.wav").write_bytes(content)
    assert error_of(decoder, tmp_path / "a.wav") == error_type


def test_a_video_without_sound_has_no_audio(decoder, tmp_path):
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        file.mux(stream.encode(None))
    assert error_of(decoder, tmp_path / "a.mp4") == "no_audio"


def test_rates_and_channels_have_limits(decoder, tmp_path):
    assert error_of(decoder, write(tmp_path / "slow.wav", vowels(1), 1000)) == "bad_rate"
    assert error_of(decoder, write(tmp_path / "fast.wav", vowels(1), 500_000)) == "bad_rate"
    path = write(tmp_path / "wide.wav", np.zeros((100, 40)))
    assert error_of(decoder, path) == "too_many_channels"


@pytest.mark.parametrize("name", ["a.flac", "a.wav", "a.mp3", "a.ogg"])
def test_of_a_recording_longer_than_the_limit_what_is_allowed_is_decoded(tmp_path, name):
    path = write(tmp_path / name, vowels(10))
    with AudioDecoder(DecodeLimits(max_hours=8 / 3600)) as decoder:
        found = decode(decoder, path)
        assert (found.duration_s, found.over_hours, found.partial, found.ended) == (8.0, True, True, True)
        start = decode(decoder, path, max_s=2.0)
        assert (start.duration_s, start.over_hours, start.ended) == (2.0, False, False)
        behind = decode(decoder, path, offset_s=9.0)
        assert (behind.duration_s, behind.over_hours, behind.ended) == (0.0, True, True)
    with AudioDecoder(DecodeLimits(max_hours=11 / 3600)) as decoder:
        assert not decode(decoder, path).partial


def test_a_length_that_is_only_declared_refuses_nothing(tmp_path):
    path = write(tmp_path / "a.flac", vowels(3))
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # 2**36 samples
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    with AudioDecoder() as decoder:
        found = decode(decoder, path)
    assert found.duration_s == pytest.approx(3.0, abs=0.1)
    assert found.partial


def test_a_file_of_too_many_bytes_is_not_opened(tmp_path):
    path = write(tmp_path / "a.wav", vowels(1))
    with AudioDecoder(DecodeLimits(max_bytes=1000)) as decoder:
        assert error_of(decoder, path) == "too_large"
