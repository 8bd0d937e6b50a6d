"""Timestamp tokens to segments."""

from __future__ import annotations

from pipeline.engine.decoding.segments import split_spans
from tests.engine.decoding.test_rules import VOCABULARY

TIME = VOCABULARY.first_timestamp


def spans_of(tokens: list[int], duration_s: float = 30.0):
    return [(span.start_s, span.end_s, span.tokens) for span in split_spans(tokens, VOCABULARY, duration_s)]


def test_pairs_of_timestamps_cut_the_text():
    tokens = [TIME, 1, 2, TIME + 5, TIME + 5, 3, TIME + 8]
    assert spans_of(tokens) == [(0.0, 0.1, (1, 2)), (0.1, 0.16, (3,))]


def test_text_without_timestamps_is_one_segment_over_the_whole_window():
    assert spans_of([1, 2, 3], 12.5) == [(0.0, 12.5, (1, 2, 3))]


def test_text_that_no_timestamp_closes_ends_with_the_window():
    assert spans_of([TIME, 1, TIME + 5, TIME + 6, 2], 2.0) == [(0.0, 0.1, (1,)), (0.12, 2.0, (2,))]


def test_times_in_the_padding_are_cut_back_to_the_samples():
    assert spans_of([TIME + 2, 1, TIME + 11], 0.1) == [(0.04, 0.1, (1,))]


def test_a_window_without_text_has_no_segments():
    assert spans_of([TIME, TIME + 5]) == []
