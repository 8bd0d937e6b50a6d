"""Errors, loss and time of each setting."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.adaptive.bounds import certainty
from pipeline.adaptive.comparison import compare
from pipeline.longform.placed import PlacedResult, placed_windows
from pipeline.results.evaluation import Truth
from pipeline.search.figures import figures_of, kept_positions, speech_positions
from pipeline.search.trials import Trials
from pipeline.search.try_shard import SearchEngines, try_shard
from tests.fakes import FakeEngine, result
from tests.search.made_search import DENSE, DENSE_TEXT, HALF, shard, tried

SURE = -0.2  # the mean log-probability of every text of `FakeEngine`


def test_figures_count_errors_loss_positions_and_time():
    chosen, rows = tried([HALF])
    truths = {f"{n}.wav": Truth(text=DENSE_TEXT, language="en") for n in range(3)}
    dense, shifted, half = figures_of(Trials.collect(rows, truths, {}), chosen)
    assert (shifted.setting, shifted.excess) == ("dense +0.13 s", 0.0)
    assert (dense.wer, dense.excess, dense.device_ratio, dense.sparsity) == (0.0, 0.0, 1.0, 0.0)
    assert half.wer == half.wer_change == pytest.approx(0.3)
    assert half.excess == pytest.approx(0.3 * certainty(SURE))
    assert half.excess_interval == (pytest.approx(half.excess), pytest.approx(half.excess))
    assert half.excess_bound == math.inf  # three windows say nothing
    assert half.device_ratio == pytest.approx(0.5)
    assert (half.kept_mean, half.sparsity) == (750, 0.5)
    assert half.speech_sparsity == 0.0  # the first two seconds are speech, and the first fifteen are kept
    assert (half.num_words, half.num_dense_words, half.num_edits) == (30, 30, 9)
    assert (half.retry_share, half.num_loops) == (0.0, 0)


def test_true_segments_say_where_speech_is_and_groups_have_their_own_figures():
    chosen, rows = tried([HALF])
    truths = {f"{n}.wav": Truth(text=DENSE_TEXT, language="en") for n in range(3)}
    speech = {f"{n}.wav": [(14.0, 16.0)] for n in range(3)}
    trials = Trials.collect(rows, truths, speech)
    trial = trials.by_setting["dense"]["0.wav", 0, 0.0]
    assert not speech_positions(trial, speech).any()  # the window ends before
    longer = {**trial, "end_s": 30.0}
    assert np.flatnonzero(speech_positions(longer, speech)).tolist() == list(range(700, 800))
    assert kept_positions(trials.by_setting[chosen[2].name]["0.wav", 0, 0.0]).sum() == 750
    names = [(one.setting, one.group) for one in figures_of(trials, chosen, lambda name: name[0])]
    assert names[:4] == [("dense", group) for group in ("all", "0", "1", "2")]


def test_dense_text_that_was_decoded_again_is_as_sure_as_a_job_takes_it_for():
    """Its first pass has no log-probability; both ask that of the text that stands there in the end."""

    def answer(_samples, _language):
        return result("a heron slept", fallback="temperature=0.4", avg_logprob=-0.9)

    engine = FakeEngine(answer=answer)
    table = try_shard(shard(), SearchEngines(engines={None: engine}, settings=DENSE), language="en")
    trial = Trials.collect(table.to_pylist(), {}, {}).by_setting["dense"]["0.wav", 0, 0.0]
    windows = placed_windows({name: shard().column(name)[0] for name in shard().column_names})
    done = [PlacedResult(window=windows[0], result=answer(windows[0].samples, "en"))]
    assert (trial["logprob"], trial["text_logprob"]) == (None, -0.9)
    assert compare(done, done, done).draw.certainty == certainty(trial["text_logprob"]) < 0.03


def test_retries_and_loops_are_counted():
    looping = result("a a a", fallback="dense", device_s=3.0, retry_device_s=2.0)
    segment = replace(looping.segments[0], tokens=(7,) * 40)
    engine = FakeEngine(answer=lambda _samples, _language: replace(looping, segments=(segment,)))
    table = try_shard(shard(), SearchEngines(engines={None: engine}, settings=DENSE), language="en")
    figures, _ = figures_of(Trials.collect(table.to_pylist(), {}, {}), DENSE)
    assert (figures.retry_share, figures.num_loops) == (1.0, 3)
    assert figures.retry_device_share == pytest.approx(2 / 3)
    assert figures.wer is None
