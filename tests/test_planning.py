"""A plan is the same for the same recordings, and its shards hold about as much as was asked."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.planning import make_plan, overflow_plan, part_seconds, plan_hash
from pipeline.schema import PLAN
from pipeline.sources.recording import InputError, Recording

HOUR = 3600


def recording(name="a.wav", **changes):
    values = {"recording_id": name, "uri": f"/in/{name}", "bytes": 32_000 * 60, "identity": "1"}
    return Recording(**(values | changes))


@st.composite
def recordings(draw):
    lengths = draw(st.lists(st.one_of(st.none(), st.floats(0, 30 * HOUR)), max_size=40))
    return [recording(f"{i:03}.wav", duration_s=length) for i, length in enumerate(lengths)]


@settings(max_examples=60, deadline=None)
@given(recordings(), st.floats(0.01, 2.0))
def test_every_recording_is_planned_once_and_its_parts_are_whole(found, shard_hours):
    plan = make_plan(found, shard_hours=shard_hours)
    assert plan.schema.equals(PLAN)
    rows = plan.to_pylist()
    assert {row["recording_id"] for row in rows} == {r.recording_id for r in found}
    for name in {row["recording_id"] for row in rows}:
        parts = [row for row in rows if row["recording_id"] == name]
        assert [row["part"] for row in parts] == list(range(len(parts)))
        assert [row["offset_s"] for row in parts] == [
            i * float(part_seconds(shard_hours)) for i in range(len(parts))
        ]
        assert [row["duration_s"] is None for row in parts] == [False] * (len(parts) - 1) + [True]


@settings(max_examples=60, deadline=None)
@given(recordings(), st.floats(0.05, 2.0))
def test_shards_are_consecutive_and_never_more_than_twice_full(found, shard_hours):
    rows = make_plan(found, shard_hours=shard_hours).to_pylist()
    shards = [row["shard_id"] for row in rows]
    assert shards == sorted(shards)
    assert set(shards) == set(range(len(set(shards))))
    length = {r.recording_id: 60.0 if r.duration_s is None else r.duration_s for r in found}
    for shard in set(shards):
        inside = [row for row in rows if row["shard_id"] == shard]
        seconds = [row["duration_s"] or length[row["recording_id"]] - row["offset_s"] for row in inside]
        assert sum(seconds) <= 1.5 * max(shard_hours * HOUR, part_seconds(shard_hours)) + 1


@settings(max_examples=30, deadline=None)
@given(recordings(), st.integers())
def test_the_order_of_the_input_does_not_matter(found, seed):
    shuffled = random.Random(seed).sample(found, len(found))
    plan, other = (make_plan(rows, shard_hours=1.0) for rows in (found, shuffled))
    assert plan.equals(other)
    assert plan_hash(plan) == plan_hash(other)


def test_the_hash_depends_on_every_value_and_on_no_chunk():
    found = [recording(f"{i}.wav") for i in range(10)]
    plan = make_plan(found, shard_hours=1.0)
    assert plan_hash(plan) == plan_hash(plan.slice(0, 10).combine_chunks())
    for change in ({"identity": "2"}, {"uri": "/x"}, {"reference": ""}, {"member": "m"}, {"bytes": 7}):
        changed = make_plan([*found[:-1], recording("9.wav", **change)], shard_hours=1.0)
        assert plan_hash(changed) != plan_hash(plan)


def test_shards_fill_by_bytes_where_no_duration_is_known():
    found = [recording(f"{i:02}.wav", bytes=32_000 * 600) for i in range(12)]
    shards = make_plan(found, shard_hours=1.0).column("shard_id").to_pylist()
    assert shards == [0] * 6 + [1] * 6


def test_a_shard_of_empty_files_is_not_endless():
    found = [recording(f"{i:05}.wav", bytes=0) for i in range(5000)]
    assert make_plan(found, shard_hours=1.0).column("shard_id").to_pylist()[-1] == 1


def test_no_recordings_are_an_empty_plan():
    assert make_plan([], shard_hours=1.0).num_rows == 0
    assert plan_hash(make_plan([], shard_hours=1.0))


def test_an_id_that_occurs_twice_is_named():
    with pytest.raises(InputError, match=r"1 ids are not unique: 'a.wav'"):
        make_plan([recording(), recording(), recording("b.wav")], shard_hours=1.0)


def test_overflow_goes_to_new_shards_and_loses_no_row():
    rows = [
        {**row, "part": i % 3, "recording_id": f"{i // 3}.wav"}
        for i, row in enumerate(
            make_plan([recording(f"{i}.wav") for i in range(30)], shard_hours=1.0).to_pylist()
        )
    ]
    plan = overflow_plan(rows[::-1], first_shard_id=17, shard_hours=0.1)
    assert plan.schema.equals(PLAN)
    assert plan.column("shard_id").to_pylist()[0] == 17
    keys = [(row["recording_id"], row["part"]) for row in plan.to_pylist()]
    assert keys == sorted((row["recording_id"], row["part"]) for row in rows)
    assert plan.equals(overflow_plan(rows, first_shard_id=17, shard_hours=0.1))


def test_overflow_of_one_part_twice_is_our_own_fault():
    row = make_plan([recording()], shard_hours=1.0).to_pylist()[0]
    with pytest.raises(ValueError, match="same part"):
        overflow_plan([row, row], first_shard_id=1, shard_hours=1.0)


def test_a_column_that_came_later_changes_the_hash_only_where_it_says_something():
    plan = make_plan([Recording(recording_id="a", uri="/a", bytes=1, identity="1")], shard_hours=1.0)
    before = plan.drop_columns(["language", "prompt", "language_guess"])
    assert plan_hash(plan) == plan_hash(before)
    told = make_plan(
        [Recording(recording_id="a", uri="/a", bytes=1, identity="1", prompt="x")], shard_hours=1.0
    )
    assert plan_hash(told) != plan_hash(before)
