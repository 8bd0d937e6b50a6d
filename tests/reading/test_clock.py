"""Times are those of the container's clock, and a part of a long recording comes out as in the whole."""

from __future__ import annotations

import time

import av
import numpy as np
import pytest

from pipeline.reading import pyav_reader
from pipeline.reading.blocks import Block
from pipeline.reading.clock import on_the_clock
from pipeline.reading.containers import MP4
from tests.reading.decoding import decode, opened
from tests.reading.made_audio import RATE, vowels, write
from tests.reading.read_rows import content, plan_of, read

VOICE = vowels(6)


def written(path, pieces, *, codec="aac", rate=RATE, video_s=0.0, **how):
    """Pieces of sound, each at its time in seconds; `video_s` of pictures from 0 on."""
    with av.open(str(path), "w") as file:
        sound = file.add_stream(codec, rate=rate, layout="mono", **how)
        if video_s:
            film = file.add_stream(
                "flv" if path.suffix == ".flv" else "mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p"
            )
            for number in range(round(5 * video_s)):
                frame = av.VideoFrame(32, 32, "yuv420p")
                frame.pts = number
                file.mux(film.encode(frame))
            file.mux(film.encode(None))
        for at_s, voice in pieces:
            resampler = av.AudioResampler(format=sound.format, layout="mono", rate=rate, frame_size=1024)
            frame = av.AudioFrame.from_ndarray(voice[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = rate
            for number, part in enumerate(resampler.resample(frame)):
                part.pts = round(at_s * rate) + 1024 * number
                file.mux(sound.encode(part))
        file.mux(sound.encode(None))
    return path


def starts(samples, after_s=0.0):
    """When sound begins."""
    first = round(after_s * RATE)
    return (first + int(np.flatnonzero(np.abs(samples[first:].astype(int)) > 1000)[0])) / RATE


LATE = [
    ("a.mkv", 9.0),
    ("a.mka", 0.0),
    ("a.mp4", 9.0),
    ("a.m4a", 0.0),
    ("a.mov", 9.0),
    ("a.ts", 9.0),
    ("a.flv", 9.0),
]


@pytest.mark.parametrize(("name", "video_s"), LATE)
def test_sound_that_begins_late_lies_where_it_is_heard(decoder, tmp_path, name, video_s):
    rate = 44_100 if name == "a.flv" else RATE
    path = written(tmp_path / name, [(5.0, vowels(6, rate=rate))], rate=rate, video_s=video_s)
    found = decode(decoder, path)
    assert starts(found.samples[0]) == pytest.approx(5.0, abs=0.15)
    assert found.duration_s == pytest.approx(11.0, abs=0.2)
    assert not found.partial
    assert not decode(decoder, path, to_s=4.0).samples.any()


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov"])
def test_what_a_paused_recorder_left_out_is_silence(decoder, tmp_path, name):
    path = written(
        tmp_path / name,
        [(0.0, vowels(3)), (9.0, vowels(3, seed=1))],
        codec="pcm_s16le" if name == "a.mkv" else "aac",
    )
    found = decode(decoder, path)
    assert starts(found.samples[0], after_s=4.0) == pytest.approx(9.0, abs=0.15)
    assert not found.samples[0, 4 * RATE : round(8.8 * RATE)].any()
    assert found.duration_s == pytest.approx(12.0, abs=0.2)
    assert not found.partial
    clip = decode(decoder, path, from_s=8.0, to_s=11.0).samples[0]
    assert (
        np.abs(clip[RATE // 10 :].astype(int) - found.samples[0, 8 * RATE + RATE // 10 : 11 * RATE]).max()
        <= 2
    )


def test_a_transport_stream_counts_from_what_comes_first_and_says_so(tmp_path):
    written(tmp_path / "a.ts", [(100.0, VOICE)])
    written(tmp_path / "b.mp4", [(0.0, VOICE)])
    row, _ = content(read(plan_of(tmp_path / "a.ts")))
    assert row["recordings"][0]["clock_start_s"] == pytest.approx(100.0, abs=0.1)
    assert row["recordings"][0]["duration_s"] == pytest.approx(6.0, abs=0.1)
    assert row["windows"][0]["start_s"] == 0.0
    row, _ = content(read(plan_of(tmp_path / "b.mp4")))
    assert row["recordings"][0]["clock_start_s"] is None


def test_a_broadcast_that_began_hours_ago_is_no_longer_for_it(decoder, tmp_path):
    found = decode(decoder, written(tmp_path / "a.mkv", [(7200.0, VOICE)], codec="pcm_s16le"))
    assert found.duration_s == pytest.approx(6.0, abs=0.1)
    assert found.clock_start_s == pytest.approx(7200.0)


def blocks(*times, num=RATE // 10):
    return iter([(at_s, Block(samples=np.ones((num, 1), np.int16), rate=RATE)) for at_s in times])


def on_clock(timed, from_s=0.0, to_s=np.inf, last_s=np.inf):
    found = list(on_the_clock(timed, from_s=from_s, to_s=to_s, last_s=last_s))
    return np.concatenate([block.samples[:, 0] for block in found]) if found else np.zeros(0)


def test_time_stamps_that_jitter_leave_the_sound_in_one_piece():
    assert on_clock(blocks(0.0, 0.13, 0.17, 0.32, 0.4)).sum() == len(
        on_clock(blocks(0.0, 0.1, 0.2, 0.3, 0.4))
    )


def test_time_stamps_that_begin_anew_or_lie_go_on_where_they_were():
    assert len(on_clock(blocks(0.0, 5.0, 0.0, 0.1))) == round(5.3 * RATE)
    assert len(on_clock(blocks(0.0, 1e9, 0.2), last_s=10.0)) == round(0.3 * RATE)
    assert len(on_clock(blocks(0.0, 9000.0, 9000.1))) == round(0.3 * RATE)
    assert len(on_clock(blocks(None, None, None))) == round(0.3 * RATE)


def test_of_a_hole_at_both_sides_of_a_cut_each_has_its_share():
    first, second = (on_clock(blocks(0.0, 5.0), *span) for span in ((0.0, 3.0), (3.0, 6.0)))
    assert (len(first), first.sum()) == (3 * RATE, RATE // 10)
    assert np.array_equal(np.concatenate([first, second]), on_clock(blocks(0.0, 5.0)))


@pytest.mark.parametrize(("name", "rate"), [("a.m4a", 16_000), ("a.mp4", 44_100), ("a.mov", 48_000)])
def test_a_part_of_a_long_mp4_is_sample_for_sample_that_of_the_whole(tmp_path, monkeypatch, name, rate):
    monkeypatch.setattr(pyav_reader, "PIECE_S", 7.0)
    noisy = vowels(24, rate=rate) + 0.05 * np.random.default_rng(0).standard_normal(24 * rate)
    path = written(tmp_path / name, [(0.0, noisy)], rate=rate)  # FFmpeg's AAC puts noise into noisy bands
    with opened(path) as source:
        place = (source.fd, source.start, source.length, MP4)
        whole = np.concatenate([b.samples for b in pyav_reader.PyavReader(*place).stream(0.0).blocks])
        assert len(whole) == pytest.approx(24 * rate, abs=2048)
        for offset_s in (6.9, 7.0, 20.3, 23.0):
            part = pyav_reader.PyavReader(*place).stream(offset_s)
            samples = np.concatenate([block.samples for block in part.blocks])
            assert part.start_s == offset_s // 7 * 7
            assert np.array_equal(samples, whole[round(part.start_s * rate) :])


@pytest.mark.slow
@pytest.mark.timing
def test_the_end_of_a_long_m4a_is_found_at_once(decoder, tmp_path):
    minutes = np.tile(vowels(60), 45)
    path = written(tmp_path / "a.m4a", [(0.0, minutes)])
    started = time.perf_counter()
    whole = decode(decoder, path)
    middle = time.perf_counter()
    part = decode(decoder, path, offset_s=2680.0, max_s=10.0)
    whole_s, part_s = middle - started, time.perf_counter() - middle
    assert np.array_equal(part.samples[0], whole.samples[0, 2680 * RATE : 2690 * RATE])
    assert part_s < whole_s / 3


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_a_stretch_of_any_rate_is_that_of_the_whole_from_its_first_sample_on(decoder, tmp_path, rate):
    path = write(tmp_path / "a.flac", vowels(20, rate=rate), rate)
    whole = decode(decoder, path).samples[0].astype(int)
    for offset_s in (7.0, 12.34):
        part = decode(decoder, path, offset_s=offset_s, max_s=5.0).samples[0]
        first = round(offset_s * RATE)
        assert np.abs(part - whole[first : first + 5 * RATE]).max() <= 1
