"""Which audio is decoded both ways."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from pipeline.adaptive import sampling
from pipeline.planning import make_plan
from pipeline.reading.shard_reader import ReadOptions, ShardReader
from pipeline.sources.listing import list_recordings
from tests.adaptive.made_rows import plan
from tests.fakes import RATE


def seconds_of(units):
    return [row["duration_s"] or row["bytes"] / 32_000 for unit in units for row in unit.to_pylist()]


@pytest.mark.parametrize(
    ("num_rows", "seconds"), [(40_000, 20.0), (3000, 45.0), (60, 3600.0), (12, 10_000.0)]
)
def test_the_sample_is_at_most_a_fiftieth_of_the_audio_in_units_of_five_minutes(num_rows, seconds):
    found = plan(num_rows, seconds)
    units = sampling.draw_units(found, "hash", shard_s=3600.0)
    drawn_s = sum(seconds_of(units))
    room_s = min(sampling.MAX_SAMPLE_S, 0.02 * num_rows * seconds)
    assert 0.8 * room_s <= drawn_s <= room_s
    assert max(sum(seconds_of([unit])) for unit in units) <= sampling.STRETCH_S
    ids = [row["recording_id"] for unit in units for row in unit.to_pylist()]
    assert len(set(ids)) == len(ids)


def test_the_sample_is_the_same_for_the_same_plan_and_another_for_another():
    found = plan(3000, 45.0)
    units = sampling.draw_units(found, "hash", shard_s=3600.0)
    assert sampling.draw_units(found, "hash", shard_s=3600.0) == units
    assert sampling.draw_units(found, "other", shard_s=3600.0) != units


def test_of_a_long_recording_a_stretch_inside_it_is_drawn():
    units = sampling.draw_units(plan(60, 3600.0), "hash", shard_s=3600.0)
    for row in (row for unit in units for row in unit.to_pylist()):
        assert row["duration_s"] >= sampling.MIN_STRETCH_S
        assert row["offset_s"] == 0 or 30 <= row["offset_s"] <= 3600 - row["duration_s"]


def test_a_job_that_is_too_small_has_no_sample():
    assert sampling.draw_units(plan(24, 1000.0), "hash", shard_s=3600.0) == []
    assert sampling.draw_units(plan(26, 1000.0), "hash", shard_s=3600.0) != []


@pytest.mark.slow
def test_a_drawn_stretch_is_read_from_its_place_in_the_recording(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "MAX_SHARE", 0.4)
    monkeypatch.setattr(sampling, "MIN_WORDS", 100)
    noise = np.random.default_rng(1).integers(-3000, 3000, 600 * RATE).astype(np.int16)
    soundfile.write(tmp_path / "long.wav", noise, RATE)
    found = make_plan(list_recordings([str(tmp_path)]).recordings, shard_hours=1.0)
    (unit,) = sampling.draw_units(found, "hash", shard_s=3600.0)
    (row,) = unit.to_pylist()
    assert row["offset_s"] > 0
    with ShardReader(
        ReadOptions(voice_activity=False, channels="mix", max_hours=24.0, shard_hours=1.0)
    ) as reader:
        read = reader.read(-1, 1, [row]).to_pylist()[0]
    assert read["recordings"][0]["error_type"] is None
    assert abs(read["windows"][0]["start_s"] - row["offset_s"]) <= 30
    assert abs(read["recordings"][0]["duration_s"] - row["duration_s"]) <= 60
    first = round(read["windows"][0]["start_s"] * RATE)
    assert read["samples"][:RATE] == noise[first : first + RATE].tolist()


def test_windows_are_drawn_for_the_shadow_each_by_itself():
    drawn = [sampling.is_drawn(0.1, "plan", f"{i}.wav", 0, 30.0) for i in range(5000)]
    assert 0.08 < sum(drawn) / 5000 < 0.12
    assert not any(sampling.is_drawn(0.0, "plan", f"{i}.wav", 0, 30.0) for i in range(100))
