"""The bounds of the excess hold as often as they say, and few windows say nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.adaptive import bounds
from pipeline.adaptive.bounds import Draw, draw_of, excess, lower_bound, upper_bound


def draw(words, sparse, shifted=None, dense=0):
    return Draw(
        num_words=words,
        sparse_errors=sparse,
        shifted_errors=sparse if shifted is None else shifted,
        dense_errors=dense,
    )


def test_the_error_level_is_shared_out():
    parts = bounds.CALIBRATION_ERROR + bounds.MAX_LOOKS * bounds.LOOK_ERROR + bounds.REPORT_ERROR
    assert parts == pytest.approx(bounds.ERROR_LEVEL)


def test_the_excess_is_what_sparse_differs_by_more_than_dense_from_itself():
    assert draw(60, 3, 4, 2).excess == 1.5
    assert draw(60, 2, 2, 2).excess == 0
    assert draw(60, 0, 2, 2).excess == -1
    assert excess([draw(60, 3, 4, 2), draw(40, 0, 2, 2)]) == pytest.approx(0.005)
    assert excess([]) is None
    row = {"num_words": 9, "sparse_errors": 1, "shifted_errors": 2, "dense_errors": 3, "level": 7}
    assert draw_of(row) == draw_of(row | {"certainty": None}) == draw(9, 1, 2, 3)


def test_words_that_dense_is_not_sure_of_count_for_less():
    assert bounds.certainty(None) == bounds.certainty(0.0) == 1.0
    assert bounds.certainty(-0.5) < bounds.certainty(-0.1) < 1.0
    unsure = draw_of(vars(draw(60, 3, 4, 2)) | {"certainty": 0.5})
    assert unsure.excess == 0.75
    assert excess([unsure, draw(40, 0, 2, 2)]) == pytest.approx(-0.0025)


def test_few_windows_and_windows_without_words_say_nothing():
    few = [draw(60, 0)] * (bounds.MIN_DRAWS - 1)
    assert upper_bound(few, error_level=0.05) == math.inf
    assert lower_bound(few, error_level=0.05) == -math.inf
    assert upper_bound([draw(0, 1)] * 40, error_level=0.05) == math.inf
    assert upper_bound([*few, few[0]], error_level=0.05) == 0.0


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(st.builds(draw, st.integers(5, 60), *[st.integers(0, 5)] * 3), min_size=20, max_size=40))
def test_the_bounds_hold_the_excess_between_them_and_close_in_with_more_of_the_same(draws):
    low, high = (bound(draws, error_level=0.05) for bound in (lower_bound, upper_bound))
    assert low <= excess(draws) <= high
    assert upper_bound(draws * 4, error_level=0.05) <= high + 1e-9
    assert upper_bound(draws, error_level=0.01) >= high
    assert upper_bound(draws, error_level=0.05) == high


@pytest.mark.parametrize(("share_bad", "burst"), [(0.3, 1.5), (0.3, 3.0)])
def test_the_bounds_cover_the_truth_about_as_often_as_they_say(monkeypatch, share_bad, burst):
    """150 windows of 65 words, some of which lose a burst of words of geometric length."""
    monkeypatch.setattr(bounds, "NUM_RESAMPLES", 500)
    rng = np.random.default_rng(5)
    num_runs, num_below, num_above = 100, 0, 0
    for _ in range(num_runs):
        words = rng.integers(32, 98, 150)
        errors = np.where(rng.random(150) < share_bad, rng.geometric(1 / burst, 150), 0)
        own = rng.integers(0, 3, 150)  # what dense changes of its own, in sparse text too
        rows = zip(words.tolist(), (errors + own).tolist(), own.tolist(), strict=True)
        draws = [draw(num, sparse, sparse, dense) for num, sparse, dense in rows]
        truth = share_bad * burst / 64.5
        num_below += upper_bound(draws, error_level=0.05) >= truth
        num_above += lower_bound(draws, error_level=0.05) <= truth
    assert num_below / num_runs >= 0.9
    assert num_above / num_runs >= 0.9
