"""The level that a job starts with, decided from its sample."""

from __future__ import annotations

import json
import random

import pytest

from pipeline.adaptive import sampling
from pipeline.adaptive.calibration import calibrate_unit, decide
from pipeline.adaptive.files import DECISION, sample_name
from pipeline.driver.policy import policy_from_calibration
from pipeline.engine.sparsify.level import Level
from pipeline.output import files
from pipeline.output.local_store import LocalStore
from pipeline.schema import SAMPLE, SAMPLE_RESULT, table_of
from tests.adaptive.made_rows import LADDER, audio, counts, plan, sample_rows
from tests.lossy import LossyEngine


def test_the_sparsest_level_before_the_first_that_fails_is_taken():
    decision = decide(sample_rows([0.0, 0.001, 0.002, 0.03, 0.0]), 5, 0.01)
    assert decision.start == 3
    assert [level.passed for level in decision.levels] == [
        True,
        True,
        True,
        False,
    ]  # the fifth is not looked at


def test_the_bound_decides_and_not_the_rate():
    few, many = (decide(sample_rows([0.009], num_windows=num), 1, 0.01) for num in (40, 1000))
    assert (few.start, many.start) == (0, 1)
    assert few.levels[0].excess == pytest.approx(0.009, rel=0.1)


def test_unsure_windows_cost_a_dense_decoding_and_lose_nothing():
    lossy = [row | counts(60, 30 * (row["logprob"] < -0.5)) for row in sample_rows([0.0], unsure=4)]
    decision = decide(lossy, 1, 0.01)
    assert decision.min_logprob == pytest.approx(-0.2 - 95 / 1000)  # five in a hundred are below
    assert (decision.start, decision.levels[0].excess) == (1, pytest.approx(-0.5 * 4 / 6000))
    assert decision.levels[0].cost == pytest.approx(1300 / 1500 + 0.04)
    assert decision.levels[0].retried_share == pytest.approx(0.04)
    assert decide([row | {"logprob": None} for row in lossy], 1, 0.01).start == 0
    dense = [row | {"kept_positions": 1500} for row in lossy]
    assert decide(dense, 1, 0.01).levels[0].excess == pytest.approx(120 / 6000)


def test_the_ladder_of_a_job_and_what_it_remembers_have_the_floor_of_its_sample(tmp_path):
    rows = [row | counts(60, 30 * (row["logprob"] < -0.5)) for row in sample_rows([0.0], unsure=4)]
    store = LocalStore.open(str(tmp_path))
    long = plan(3000, 45.0)
    units = len(sampling.draw_units(long, "hash", shard_s=3600.0))

    def decode(units, _calibration, _number):
        own = [[row for row in rows if row["window_unit"] == unit] for unit in range(len(units))]
        for number, found in enumerate(own):
            table = table_of(SAMPLE, [{k: v for k, v in row.items() if k != "window_unit"} for row in found])
            store.publish(sample_name(number), files.parquet_bytes(table))

    rows = [row | {"unit": n % units, "window_unit": n % units} for n, row in enumerate(rows)]
    policy = policy_from_calibration(store, LADDER[:1], long, "hash", 0.01, shard_s=3600.0, run_units=decode)
    assert policy.ladder[0].min_logprob == json.loads(store.read(DECISION))["min_logprob"] < -0.2
    assert policy.start == 1
    assert sum(draw.excess for draw in policy.calibrated[0]) == pytest.approx(-2)


def test_a_level_whose_retries_cost_more_than_it_saves_is_not_taken():
    decision = decide(sample_rows([0.0, 0.0, 0.0], retried={3: 50}), 3, 0.01)
    assert decision.start == 2
    assert decision.levels[2].cost == pytest.approx(900 / 1500 + 0.5)
    assert decision.levels[2].retried_share == 0.5


def test_retries_that_dense_needs_too_are_not_held_against_a_level():
    rows = [
        row | {"retried_positions": 1500, "dense_positions": 3000} for row in sample_rows([0.0], kept=(900,))
    ]
    decision = decide(rows, 1, 0.01)
    assert (decision.start, decision.levels[0].cost) == (1, pytest.approx(2400 / 3000))


def test_where_no_level_is_good_enough_the_job_is_dense():
    assert decide(sample_rows([0.05, 0.0]), 2, 0.01).start == 0


def test_a_sample_of_few_words_says_that_the_job_is_dense():
    decision = decide(sample_rows([0.0], num_windows=30), 1, 0.01)
    assert decision.start == 0
    assert "1800 dense words, 2000 are needed" in decision.reason


def test_a_level_that_a_unit_was_not_decoded_at_has_failed():
    rows = [row for row in sample_rows([0.0, 0.0]) if (row["unit"], row["level"]) != (1, 2)]
    assert decide(rows, 2, 0.01).start == 1


def test_the_order_in_which_units_came_back_changes_nothing():
    rows = sample_rows([0.001, 0.004, 0.009])
    assert decide(random.Random(1).sample(rows, len(rows)), 3, 0.01) == decide(rows, 3, 0.01)


def calibrated(engine, **options):
    defaults = {"unit": 2, "language": "en", "ladder": (Level(thin_ends=True), Level(sparsity=0.5))}
    table = calibrate_unit(audio(), engine, **(defaults | options))
    assert table.schema.equals(SAMPLE_RESULT)
    return table.to_pylist()[0]["windows"]


def test_a_unit_is_decoded_at_every_level_beside_dense():
    found = calibrated(LossyEngine(loss=2.0))
    assert [(row["level"], row["recording_id"]) for row in found] == [
        (level, f"{i}.wav") for level in (1, 2) for i in range(4)
    ]
    assert [row["sparse_errors"] for row in found] == [0] * 4 + [1] * 4
    assert [row["dense_errors"] for row in found[:4]] == [row["dense_errors"] for row in found[4:]]
    assert {row["num_words"] for row in found} == {20}
    assert {row["unit"] for row in found} == {2}
