"""The bound of the loss holds as often as it says, and never believes a sample more than it may."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.adaptive import bounds
from pipeline.adaptive.bounds import poisson_bound, upper_bound


def test_the_error_level_is_shared_out():
    parts = bounds.CALIBRATION_ERROR + bounds.MAX_LOOKS * bounds.LOOK_ERROR + bounds.REPORT_ERROR
    assert parts == pytest.approx(bounds.ERROR_LEVEL)


def test_without_an_error_the_rule_of_three_holds_for_bursts_of_two():
    assert upper_bound([0] * 40, [50] * 40, error_level=0.05) == pytest.approx(2 * 3.0 / 2000, rel=0.01)


def test_without_words_nothing_is_known():
    assert upper_bound([], [], error_level=0.05) == math.inf
    assert upper_bound([0], [0], error_level=0.05) == math.inf


# Exact: the Poisson mean at which so many or fewer come with a chance of 0.05, and of 0.001.
@pytest.mark.parametrize(
    ("count", "error_level", "expected"),
    [(0, 0.05, 2.996), (1, 0.05, 4.744), (5, 0.05, 10.513), (20, 0.05, 29.062), (5, 0.001, 16.455)],
)
def test_the_poisson_bound_is_that_of_the_tables(count, error_level, expected):
    assert poisson_bound(count, error_level) == pytest.approx(expected, rel=0.01)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(5, 60)), min_size=1, max_size=30))
def test_the_bound_is_above_the_rate_and_falls_with_more_of_the_same(draws):
    errors, words = zip(*draws, strict=True)
    bound = upper_bound(errors, words, error_level=0.05)
    assert bound >= sum(errors) / sum(words)
    assert upper_bound(errors * 4, words * 4, error_level=0.05) <= bound * 1.02
    assert upper_bound(errors, words, error_level=0.01) >= bound


@pytest.mark.parametrize(("share_bad", "burst"), [(0.1, 1.0), (0.3, 1.5), (0.1, 3.0), (0.3, 3.0)])
def test_the_bound_covers_the_truth_about_as_often_as_it_says(monkeypatch, share_bad, burst):
    """150 windows of 65 words, some of which lose a burst of words of geometric length."""
    monkeypatch.setattr(bounds, "NUM_RESAMPLES", 500)
    rng = np.random.default_rng(5)
    num_runs, num_covered = 100, 0
    for _ in range(num_runs):
        words = rng.integers(32, 98, 150)
        errors = np.where(rng.random(150) < share_bad, rng.geometric(1 / burst, 150), 0)
        truth = share_bad * burst / 64.5
        num_covered += upper_bound(errors.tolist(), words.tolist(), error_level=0.05) >= truth
    assert num_covered / num_runs >= 0.9
