"""The Pareto front, the best, and the policy made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.adaptive.bounds import certainty
from pipeline.engine.sparsify.level import Level
from pipeline.search import choice, report
from pipeline.search.figures import figures_of
from pipeline.search.settings import Condition, Setting
from pipeline.search.trials import Trials
from pipeline.search.try_shard import SearchEngines, try_shard
from tests.search.made_search import DENSE, DENSE_TEXT, HALF, Levelled, found, shard


def candidate(loss, device_ratio, bound=None):
    level = Level(layer=1, sparsity=round(device_ratio % 0.95, 4))
    return choice.Candidate(level=level, excess=loss, bound=bound or loss, device_ratio=device_ratio)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 2)), max_size=12))
def test_nothing_beats_the_front_and_everything_else_is_beaten(pairs):
    candidates = [candidate(loss, ratio) for loss, ratio in pairs]
    front = choice.front(candidates)
    for one in candidates:
        beaten = any(
            other.excess <= one.excess
            and other.device_ratio <= one.device_ratio
            and (other.excess, other.device_ratio) != (one.excess, one.device_ratio)
            for other in candidates
        )
        assert (one in front) is not beaten
    assert [one.device_ratio for one in front] == sorted((one.device_ratio for one in front), reverse=True)


def test_the_best_is_the_fastest_within_the_budget_and_none_where_nothing_is_faster():
    mild, good, wild = candidate(0.0, 0.9, 0.002), candidate(0.004, 0.7, 0.008), candidate(0.03, 0.5, 0.04)
    assert choice.best([mild, good, wild], 0.01) == good
    assert choice.best([wild, candidate(0.0, 1.1, 0.001)], 0.01) is None
    policy = choice.policy([mild, good, wild], 0.01, model="m", model_revision="r", evidence={})
    assert policy.levels == (mild.level, good.level)
    assert policy.start == 2
    nothing = choice.policy([wild], 0.01, model="m", model_revision="r", evidence={})
    assert (nothing.levels, nothing.start) == ((), 0)


def test_a_level_is_judged_by_its_worst_condition():
    chosen = [
        replace(setting, condition=Condition(snr_db=snr_db))
        for snr_db in (None, 10.0)
        for setting in (*DENSE, Setting(level=HALF))
    ]
    engine = Levelled()
    table = try_shard(shard(), SearchEngines(engines={None: engine}, settings=chosen), language="en")
    rows = table.to_pylist()
    for trial in rows[0]["trials"]:
        if trial["setting"] == "i2 s0.50 attention 10 dB":
            trial["text"] = ""
    figures = figures_of(Trials.collect(rows, {}, {}), chosen)
    (one,) = choice.candidates(chosen, figures)
    assert one.excess == pytest.approx(certainty(-0.2))


def test_levels_that_thin_the_ends_are_judged_with_the_floor_that_jobs_run_them_with():
    thinned, fixed = replace(HALF, thin_ends=True), HALF
    outcome_of = found([thinned, fixed], num=40)
    for trial in outcome_of.rows[0]["trials"]:
        number = int(trial["recording_id"].removesuffix(".wav"))
        is_spoilt = not trial["setting"].startswith("dense") and number < 4
        trial["logprob"] = -0.9 if is_spoilt else -0.1
        if trial["setting"] == "dense":
            trial["logprob"] -= number / 1000
        trial["text"] = "" if is_spoilt else DENSE_TEXT
    outcome = report.judge_search(outcome_of, question="?", wer_budget=1.0, group=None)
    dense, _, shared, halved = outcome.figures
    assert (shared.num_edits, shared.retry_share) == (0, 0.1)
    assert shared.device_s == pytest.approx(halved.device_s + 4 * dense.device_s / 40)
    assert (halved.num_edits, halved.retry_share) == (4 * 10, 0.0)
    floors = {one.level.thin_ends: one.level.min_logprob for one in outcome.candidates}
    assert floors == {True: pytest.approx(-0.1 - 38 / 1000), False: None}
