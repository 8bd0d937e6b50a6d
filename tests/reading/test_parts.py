"""Parts of a long recording hold every sample once, and meet where nothing is said."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pipeline.planning import make_plan
from pipeline.sources.listing import list_recordings
from tests.reading.made_audio import RATE, encode, vowels, write
from tests.reading.read_rows import content, plan_of, read, read_all

LONG = 600.0  # seconds
SHARD_HOURS = 120 / 3600  # the shortest parts that there are


def speech_with_pauses(seconds, seed=0):
    """Noise with a pause every few seconds, int16: what a cut looks for."""
    rng = np.random.default_rng(seed)
    samples = rng.integers(-8000, 8000, round(seconds * RATE)).astype(np.int16)
    for at in np.arange(3.0, seconds, 7.3):
        samples[round(at * RATE) : round((at + rng.uniform(0.3, 0.8)) * RATE)] //= 500
    return samples


def assert_whole(found, name, samples):
    """The parts of a recording hold every sample of it once, at its time."""
    heard = np.zeros(len(samples), int)
    parts = sorted(key for key in found if key[0] == name)
    assert [part for _, part, _ in parts] == list(range(len(parts)))
    for key in parts:
        for window, piece in found[key][1]:
            first = round(window["start_s"] * RATE)
            heard[first : first + len(piece)] += 1
            assert np.array_equal(piece, samples[first : first + len(piece)])
    assert (heard == 1).all()
    total_s = sum(found[key][0]["duration_s"] for key in parts)
    assert total_s == pytest.approx(len(samples) / RATE)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_parts_hold_every_sample_exactly_once(tmp_path, suffix):
    samples = speech_with_pauses(LONG)
    write(tmp_path / f"long.{suffix}", samples)
    found = read_all(plan_of(tmp_path, shard_hours=SHARD_HOURS), shard_hours=SHARD_HOURS)
    assert len(found) > 3
    assert not any(recording["scorable"] for recording, _ in found.values())
    assert_whole(found, f"long.{suffix}", samples)


@pytest.mark.slow
def test_parts_by_a_stated_duration_hold_every_sample_once_even_where_it_lies(tmp_path):
    samples = speech_with_pauses(LONG, seed=1)
    path = write(tmp_path / "a.flac", samples)
    manifest = tmp_path / "m.jsonl"
    for stated in (200, 1000):
        manifest.write_text(f'{{"path": "{path}", "id": "a", "duration": {stated}}}\n')
        plan = make_plan(list_recordings([str(manifest)]).recordings, shard_hours=SHARD_HOURS)
        found = read_all(plan.to_pylist(), shard_hours=SHARD_HOURS)
        assert_whole(found, "a", samples)


def test_a_cut_lies_in_a_pause(tmp_path):
    samples = speech_with_pauses(LONG, seed=2)
    write(tmp_path / "a.wav", samples)
    found = read_all(plan_of(tmp_path, shard_hours=SHARD_HOURS), shard_hours=SHARD_HOURS)
    starts = [windows[0][0]["start_s"] for (_, part, _), (_, windows) in found.items() if part]
    assert starts
    for start in starts:
        around = samples[round((start - 0.05) * RATE) : round((start + 0.05) * RATE)]
        assert np.abs(around.astype(int)).max() < 100


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.m4a"])
def test_parts_of_a_lossy_file_meet_at_one_cut(tmp_path, name):
    samples = speech_with_pauses(300, seed=3)
    if name.endswith("m4a"):
        encode(tmp_path / name, samples / np.float32(32768), "aac")
    else:
        write(tmp_path / name, samples)
    found = read_all(plan_of(tmp_path, shard_hours=0.03), shard_hours=0.03)
    assert len(found) > 1
    edges = [(windows[0][0]["start_s"], windows[-1][0]["end_s"]) for _, windows in
             (found[key] for key in sorted(found))]  # fmt: skip
    assert edges[0][0] == 0.0
    for (_, end), (start, _) in pairwise(edges):
        assert end == pytest.approx(start, abs=2 / RATE)
    assert edges[-1][1] == pytest.approx(300, abs=0.1)


def test_what_does_not_fit_goes_to_the_next_round_whole(tmp_path):
    for i in range(6):
        write(tmp_path / f"{i}.wav", vowels(8, seed=i, rate=8000), 8000, subtype="PCM_U8")
    rows = plan_of(tmp_path)
    assert {row["shard_id"] for row in rows} == {0}
    row, _ = content(read(rows, shard_hours=10 / 3600))
    assert [r["recording_id"] for r in row["recordings"]] == ["0.wav", "1.wav"]
    assert row["overflow"] == rows[2:]
    found = read_all(rows, shard_hours=10 / 3600)
    assert sorted(key[0] for key in found) == [f"{i}.wav" for i in range(6)]
    assert all(recording["scorable"] for recording, _ in found.values())


def test_split_channels_of_a_long_recording_are_whole_too(tmp_path):
    left, right = speech_with_pauses(LONG, seed=4), speech_with_pauses(LONG, seed=5)
    write(tmp_path / "a.wav", np.stack([left, right], 1))
    found = read_all(plan_of(tmp_path, shard_hours=SHARD_HOURS), shard_hours=SHARD_HOURS, channels="split")
    for channel, samples in enumerate((left, right)):
        one = {(n, p, 0): value for (n, p, c), value in found.items() if c == channel}
        assert_whole(one, "a.wav", samples)


def test_with_voice_activity_every_part_covers_the_speech_of_the_whole(tmp_path):
    pieces = [piece for seed in range(12) for piece in (vowels(4, seed=seed), np.zeros(RATE))]
    samples = np.concatenate(5 * pieces)
    write(tmp_path / "a.flac", samples)
    whole = read_all(plan_of(tmp_path), voice_activity=True)
    parts = read_all(plan_of(tmp_path, shard_hours=0.02), shard_hours=0.02, voice_activity=True)
    assert len(whole) == 1
    assert len(parts) > 1

    def spoken(found):
        """Seconds of speech in every second of the recording."""
        second, heard = np.arange(len(samples) // RATE + 1), 0.0
        spans = [s for _, windows in found.values() for window, _ in windows for s in window["speech"]]
        for span in spans:
            inside = np.minimum(second + 1, span["end_s"]) - np.maximum(second, span["start_s"])
            heard = heard + np.clip(inside, 0, None)
        return heard

    assert np.abs(spoken(whole) - spoken(parts)).mean() < 0.05
    assert (spoken(parts) <= 1 + 1e-6).all()


@pytest.mark.parametrize("shard_hours", [1.0, SHARD_HOURS])
def test_of_a_recording_longer_than_the_limit_what_is_allowed_is_read(tmp_path, shard_hours):
    samples = speech_with_pauses(LONG)
    write(tmp_path / "a.flac", samples)
    found = read_all(
        plan_of(tmp_path, shard_hours=shard_hours), max_hours=320 / 3600, shard_hours=shard_hours
    )
    assert_whole(found, "a.flac", samples[: 320 * RATE])
    *others, last = [found[key][0] for key in sorted(found)]
    assert (len(others) > 0) == (shard_hours < 1)
    assert not any(recording["partial"] or recording["error_message"] for recording in others)
    assert last["partial"]
    assert "longer than --max-hours" in last["error_message"]
