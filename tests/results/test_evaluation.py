"""Figures of a committed output against what is known of its recordings."""

import itertools
from operator import itemgetter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.intervals import wer_interval
from pipeline.metrics.wer import Counts
from pipeline.results.evaluation import Truth, evaluate, score_recordings
from pipeline.results.faults import Faults
from pipeline.results.recordings import join_rows
from pipeline.schema import TRANSCRIPTS


def row(recording_id, text, *, part=0, language="en", start_s=0.0, status="ok", speech_s=1.0, **more):
    segments = [{"start_s": start_s, "end_s": start_s + 1.0, "text": text}] if text else []
    return {
        **dict.fromkeys(TRANSCRIPTS.names),
        "recording_id": recording_id, "part": part, "channel": 0, "status": status, "text": text,
        "segments": segments, "language": language, "speech_s": speech_s,
    } | more  # fmt: skip


by_id = itemgetter("recording_id")


def score(rows, truths):
    """The rows joined to recordings and scored."""
    groups = itertools.groupby(sorted(rows, key=by_id), by_id)
    faults = Faults()
    scored = score_recordings([join_rows(list(group)) for _, group in groups], truths, faults)
    assert faults.num == 0
    return scored


def test_groups_are_summed_by_counts():
    truths = {name: Truth(text="red green blue white") for name in ("a/1", "a/2", "b/1")}
    rows = [row("a/1", "red green blue white"), row("a/2", "red green"), row("b/1", "red green blue black")]
    groups = evaluate(score(rows, truths), lambda name: name[0])
    assert [(group.group, group.num_recordings, group.counts.wer) for group in groups] == [
        ("a", 2, 0.25),
        ("b", 1, 0.25),
    ]


def test_parts_are_joined_in_the_order_of_time_before_they_are_scored():
    rows = [row("a", "blue white", part=1, start_s=60.0), row("a", "red green")]
    assert score(rows, {"a": Truth(text="red green blue white")})[0].counts.num_errors == 0


def test_a_failed_recording_is_not_scored():
    assert score([row("a", None, status="failed")], {"a": Truth(text="red")}) == []


def test_text_where_there_should_be_none_is_counted():
    scored = score([row("a", "phantom"), row("b", "")], {name: Truth(text="") for name in "ab"})
    (whole,) = evaluate(scored, lambda _name: "all")
    assert (whole.num_empty_references, whole.num_false_texts) == (2, 1)
    assert whole.counts.wer is None
    assert whole.counts.num_insertions == 1


def test_languages_and_segment_starts_are_scored_where_they_are_known():
    truths = {
        "a": Truth(text="red", language="en", segment_starts_s=(1.0, 5.0)),
        "b": Truth(text="red", language="de"),
    }
    scored = score([row("a", "red", start_s=1.25), row("b", "red")], truths)
    (whole,) = evaluate(scored, lambda _name: "all")
    assert whole.language_accuracy == 0.5
    assert whole.start_error_median_s == pytest.approx((0.25 + 3.75) / 2)


def test_the_language_is_that_of_most_speech_and_a_translation_is_scored_as_english():
    ring = row("a", "oui", language="fr", speech_s=1.0)
    rest = row("a", "nein, colour", part=1, language="de", speech_s=60.0)
    assert join_rows([ring, rest]).language == "de"
    translated = row("a", "The colour of it", language="zh", text_language="en")
    scored = score([translated], {"a": Truth(text="the color of it", language="zh")})
    assert scored[0].counts == Counts(num_hits=4)
    assert scored[0].language_right


def test_an_output_of_before_text_languages_is_read_by_what_was_spoken():
    assert join_rows([row("a", "x", language="de")]).text_language == "de"


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        (("广州市", "zh"), ("市场", "zh"), "广州市市场"),
        (("今日は", "ja"), ("明日は", "ja"), "今日は明日は"),
        (("今日は", "ja"), ("hello", "en"), "今日は hello"),
        (("one", "en"), ("two", None), "one two"),
        (("", "zh"), ("市场", "zh"), "市场"),
    ],
)
def test_parts_are_joined_as_their_languages_join_words(first, second, joined):
    rows = [
        row("a", text, part=part, language=language) for part, (text, language) in enumerate([first, second])
    ]
    assert join_rows(rows).text == joined
    for channel, one in enumerate(rows):
        one |= {"channel": channel, "part": 0}
    assert join_rows(rows).text == joined


def test_one_recording_that_cannot_be_scored_costs_no_other(caplog):
    odd = row("b", "red")
    faults, truths = Faults(), {name: Truth(text="red") for name in "abc"}
    truths["b"] = Truth(text=None)
    found = [join_rows([one]) for one in (row("a", "red"), odd, row("c", "blue"))]
    assert [one.recording_id for one in score_recordings(found, truths, faults)] == ["a", "c"]
    assert faults.num == 1
    assert [record.message.partition(":")[0] for record in caplog.records] == ["b"]


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
