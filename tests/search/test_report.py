"""What a search leaves behind: figures, page, policy and plots."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.adaptive.policy_file import read_policy
from pipeline.engine.sparsify.level import Level
from pipeline.output.local_store import LocalStore
from pipeline.results.plot_axes import ticks
from pipeline.search import plots, report
from tests.search.made_search import HALF, found


def test_the_output_holds_figures_page_and_a_policy_that_can_be_read(tmp_path):
    outcome = report.judge_search(
        found([Level(layer=1, sparsity=0.1), HALF], num=30), question="Which?", wer_budget=0.99, group=None
    )
    summary = report.write(LocalStore.open(str(tmp_path)), outcome)
    assert summary["best"]["level"]["sparsity"] == 0.5
    figures = json.loads((tmp_path / "search.json").read_text())
    assert [one["setting"] for one in figures["figures"]] == [
        "dense",
        "dense +0.13 s",
        "i1 s0.10 attention",
        "i2 s0.50 attention",
    ]
    page = (tmp_path / "search.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r'<script|src="|href="', page)
    assert page.count("<circle") > 4
    policy = read_policy(tmp_path / "policy.json")
    assert policy.levels[-1] == HALF
    assert policy.start == len(policy.levels)
    assert policy.model_revision == "r"


def test_a_corpus_that_says_nothing_has_neither_a_bound_nor_a_best(tmp_path):
    nothing = found([HALF])
    for trial in nothing.rows[0]["trials"]:
        trial["text"] = ""
    outcome = report.judge_search(nothing, question="?", wer_budget=0.5, group=None)
    report.write(LocalStore.open(str(tmp_path)), outcome)
    text = (tmp_path / "search.json").read_text() + (tmp_path / "policy.json").read_text()
    assert "Infinity" not in text
    assert json.loads((tmp_path / "search.json").read_text())["best"] is None


@pytest.mark.parametrize("excess", [0.02, -0.02])  # less than none: sparse text that is closer than dense
def test_plots_place_every_setting_inside_the_axes(excess):
    outcome = report.judge_search(
        found([HALF, Level(layer=1, sparsity=0.9)]), question="?", wer_budget=0.01, group=None
    )
    interval = (excess - 0.01, excess + 0.01)
    figures = [replace(one, excess=excess, excess_interval=interval) for one in outcome.figures]
    drawn = plots.search_plots(outcome.found.settings, figures, outcome.front, 0.01)
    assert len(drawn) == 2
    for one in drawn:
        dots = [dot for series in one.series for dot in series.dots]
        assert len(dots) == 2
        assert all(plots.LEFT <= dot.x <= plots.RIGHT for dot in dots)
        assert all(plots.TOP <= dot.span[0] <= dot.y <= dot.span[1] <= plots.BOTTOM for dot in dots)


@settings(deadline=None)
@given(low=st.floats(-5, 5), span=st.floats(1e-3, 100))
def test_ticks_are_a_few_round_values_inside_the_axis(low, span):
    found_ticks = ticks(low, low + span, plots.NUM_TICKS)
    assert 1 <= len(found_ticks) <= plots.NUM_TICKS + 1
    assert all(low - 1e-6 <= tick <= low + span + 1e-6 for tick in found_ticks)
