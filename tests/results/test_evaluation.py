"""Figures of a committed output against what is known of its recordings."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.intervals import wer_interval
from pipeline.metrics.wer import Counts
from pipeline.results.evaluation import Truth, evaluate, score_rows


def row(recording_id, text, *, part=0, channel=0, language="en", start_s=0.0, status="ok"):
    segments = [{"start_s": start_s, "text": text}] if text else []
    return {
        "recording_id": recording_id, "part": part, "channel": channel, "status": status, "text": text,
        "segments": segments, "language": language,
    }  # fmt: skip


def test_groups_are_summed_by_counts():
    truths = {name: Truth(text="red green blue white") for name in ("a/1", "a/2", "b/1")}
    rows = [row("a/1", "red green blue white"), row("a/2", "red green"), row("b/1", "red green blue black")]
    groups = evaluate(score_rows(rows, truths), lambda name: name[0])
    assert [(group.group, group.num_recordings, group.counts.wer) for group in groups] == [
        ("a", 2, 0.25),
        ("b", 1, 0.25),
    ]


def test_parts_are_joined_in_the_order_of_time_before_they_are_scored():
    rows = [row("a", "blue white", part=1, start_s=60.0), row("a", "red green")]
    assert score_rows(rows, {"a": Truth(text="red green blue white")})[0].counts.num_errors == 0


def test_a_failed_recording_is_not_scored():
    assert score_rows([row("a", None, status="failed")], {"a": Truth(text="red")}) == []


def test_text_where_there_should_be_none_is_counted():
    scored = score_rows([row("a", "phantom"), row("b", "")], {name: Truth(text="") for name in "ab"})
    (whole,) = evaluate(scored, lambda _name: "all")
    assert (whole.num_empty_references, whole.num_false_texts) == (2, 1)
    assert whole.counts.wer is None
    assert whole.counts.num_insertions == 1


def test_languages_and_segment_starts_are_scored_where_they_are_known():
    truths = {
        "a": Truth(text="red", language="en", segment_starts_s=(1.0, 5.0)),
        "b": Truth(text="red", language="de"),
    }
    scored = score_rows([row("a", "red", start_s=1.25), row("b", "red")], truths)
    (whole,) = evaluate(scored, lambda _name: "all")
    assert whole.language_accuracy == 0.5
    assert whole.start_error_median_s == pytest.approx((0.25 + 3.75) / 2)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), min_size=1, max_size=20))
def test_the_interval_lies_around_ratios_that_can_occur(pairs):
    counts = [Counts(num_hits=hits, num_deletions=deletions) for hits, deletions in pairs]
    interval = wer_interval(counts)
    if sum(hits + deletions for hits, deletions in pairs) == 0:
        assert interval is None
    else:
        ratios = [count.wer for count in counts if count.wer is not None]
        assert min(ratios) <= interval[0] <= interval[1] <= max(ratios)
