"""Windows cover the speech exactly once, and a cut is where nobody speaks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.reading.windows import (
    LONG_ENOUGH_S,
    MAX_GAP_S,
    MAX_WINDOW_S,
    cut_windows,
    even_windows,
    find_cut,
)

RATE = 16_000


@st.composite
def speeches(draw):
    """Spans of speech, ascending and apart, with lengths and gaps of every size."""
    spans, now = [], 0.0
    for _ in range(draw(st.integers(0, 12))):
        now += draw(st.floats(0.05, 8.0))
        end = now + draw(st.floats(0.25, 70.0))
        spans.append((now, end))
        now = end
    return spans


def noise(seconds, seed=0):
    return np.random.default_rng(seed).integers(-3000, 3000, round(seconds * RATE)).astype(np.int16)


@settings(max_examples=80, deadline=None)
@given(speeches())
def test_windows_cover_the_speech_exactly_once(spans):
    windows = cut_windows(spans, noise(spans[-1][1] if spans else 0.0))
    pieces = [piece for window in windows for piece in window.speech]
    assert sum(end - start for start, end in pieces) == pytest.approx(sum(e - s for s, e in spans))
    edges = {edge for span in spans for edge in span}
    for (_, left), (right, _) in pairwise(pieces):
        assert left <= right
        assert left == right or {left, right} <= edges
    for start, end in spans:
        inside = [piece for piece in pieces if start <= piece[0] < end]
        assert (inside[0][0], inside[-1][1]) == (start, end)


@settings(max_examples=80, deadline=None)
@given(speeches())
def test_a_window_is_contiguous_and_at_most_30_seconds(spans):
    windows = cut_windows(spans, noise(spans[-1][1] if spans else 0.0))
    for window in windows:
        assert 0 < window.end_s - window.start_s <= MAX_WINDOW_S + 1e-9
        assert window.start_s <= window.speech[0][0]
        assert window.end_s >= window.speech[-1][1] - 1e-4  # noise of whole samples
        assert round(window.end_s * RATE) - round(window.start_s * RATE) <= MAX_WINDOW_S * RATE
    for left, right in pairwise(windows):
        assert left.end_s <= right.start_s


@settings(max_examples=80, deadline=None)
@given(speeches())
def test_a_window_grows_as_far_as_the_rule_allows(spans):
    windows = cut_windows(spans, noise(spans[-1][1] if spans else 0.0))
    for left, right in pairwise(windows):
        first_s, last_s = left.speech[0][0], left.speech[-1][1]
        too_long = right.speech[0][1] - first_s > MAX_WINDOW_S
        gap = right.speech[0][0] - last_s > MAX_GAP_S and last_s - first_s > LONG_ENOUGH_S
        assert too_long or gap


def test_a_gap_over_two_seconds_ends_only_a_long_window():
    quiet = noise(40)
    assert len(cut_windows([(0, 5), (9, 12)], quiet)) == 1
    assert len(cut_windows([(0, 16), (18.5, 20)], quiet)) == 2
    assert len(cut_windows([(0, 16), (17.5, 20)], quiet)) == 1


def test_a_window_takes_up_to_a_second_of_the_pauses_around_it():
    windows = cut_windows([(3.0, 20.0), (23.0, 40.0), (40.5, 55.0)], noise(60))
    assert [(w.start_s, w.end_s) for w in windows] == [(2.0, 21.0), (22.0, 40.25), (40.25, 56.0)]


def test_a_window_gives_up_room_before_speech():
    (first, _) = cut_windows([(1.0, 15.0), (15.5, 30.5), (40.0, 41.0)], noise(50))
    assert (first.start_s, first.end_s) == (0.75, 30.75)


def test_a_short_recording_is_one_window_as_it_is():
    (window,) = cut_windows([(2.0, 18.0), (21.0, 22.0)], noise(25))
    assert (window.start_s, window.end_s, window.speech) == (0.0, 25.0, ((2.0, 18.0), (21.0, 22.0)))
    assert cut_windows([], noise(25)) == []


def test_long_speech_is_split_where_it_is_quietest():
    samples = noise(50)
    samples[round(24.9 * RATE) : round(25.3 * RATE)] = 0
    first, second = cut_windows([(0.0, 50.0)], samples)
    assert 24.9 <= first.end_s <= 25.3
    assert second.start_s == first.end_s


def test_without_voice_activity_windows_are_consecutive_30_seconds():
    windows = even_windows(75.5)
    assert [(w.start_s, w.end_s) for w in windows] == [(0, 30), (30, 60), (60, 75.5)]
    assert all(window.speech == ((window.start_s, window.end_s),) for window in windows)
    assert even_windows(0.0) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(2.0, 57.0))
def test_a_cut_lies_in_the_pause(seed, pause_s):
    minute = noise(60, seed)
    minute[round(pause_s * RATE) : round((pause_s + 0.6) * RATE)] = 0
    assert pause_s <= find_cut(minute) <= pause_s + 0.6


def test_of_equal_pauses_the_cut_takes_the_one_in_the_middle():
    assert find_cut(np.zeros(60 * RATE, np.int16)) == pytest.approx(30.0, abs=0.2)


def test_a_minute_that_is_not_there_is_cut_at_its_start():
    assert find_cut(np.zeros(0, np.int16)) == 0.0
    assert 0 <= find_cut(np.zeros(800, np.int16)) <= 0.05
