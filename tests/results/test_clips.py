"""Which segments become clips for training, with which neighbours, and why not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.results.clips import MAX_GAP_S, ClipRules, clips_of
from tests.results.test_exports import segment, transcript


def row(*segments, **changes):
    return transcript("a", [one | {"id": number} for number, one in enumerate(segments)], **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"text": " "}, "text"),
        ({"fallback": "dense"}, "fallback"),
        ({"avg_logprob": -0.9}, "logprob"),
        ({"compression_ratio": 2.5}, "compression"),
        ({"end_s": 0.5}, "short"),
        ({"end_s": 31.0}, "long"),
    ],
)
def test_a_segment_is_left_out_for_one_reason(changes, reason):
    (clip,) = clips_of(row(segment("x") | changes), ClipRules())
    assert clip.reason == reason


def test_rules_say_what_is_taken():
    segments = (segment("x", fallback="dense"),)
    assert clips_of(row(*segments), ClipRules(with_fallback=True))[0].reason is None
    assert clips_of(row(segment("x"), language="de"), ClipRules(languages=("en",)))[0].reason == "language"
    assert clips_of(row(segment("x", avg_logprob=-0.9)), ClipRules(min_logprob=-1.0))[0].reason is None


def test_of_a_copy_nothing_is_taken():
    segments = (segment("x"), segment("y", fallback="dense"))
    assert [clip.reason for clip in clips_of(row(*segments, same_as="b"), ClipRules())] == ["copy", "copy"]


def test_short_neighbours_are_joined_up_to_a_length_and_not_over_a_pause():
    segments = [segment(str(i), 2.0 * i, 2.0 * i + 1.9) for i in range(6)]
    segments += [segment("far", 20.0, 22.0), segment("again", 22.0, 24.0, fallback="dense")]
    clips = clips_of(row(*segments), ClipRules(target_s=6.0))
    assert [clip.segment_ids for clip in clips] == [(0, 1, 2), (3, 4, 5), (6,), (7,)]
    assert clips[0].text == "0 1 2"


def test_a_clip_has_a_little_audio_around_it_but_none_of_its_neighbours():
    clips = clips_of(
        row(segment("a", 1.0, 2.0), segment("b", 2.1, 4.0), segment("c", 9.0, 11.0)), ClipRules()
    )
    assert [(clip.start_s, clip.end_s) for clip in clips] == [
        (0.9, pytest.approx(2.05)),
        (pytest.approx(2.05), 4.1),
        (8.9, 11.1),
    ]


def test_clips_in_a_language_without_spaces_are_joined_without():
    segments = (segment("今日は", 0.0, 1.0), segment("東京です", 1.0, 2.0))
    assert clips_of(row(*segments, language="ja"), ClipRules(target_s=10.0))[0].text == "今日は東京です"


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 12), st.sampled_from([None, "dense"])), max_size=12),
    st.sampled_from([0.0, 5.0, 15.0]),
)
def test_every_segment_is_in_one_clip_in_order_and_no_clip_joins_over_a_pause(spans, target_s):
    segments, now = [], 0.0
    for gap, length, fallback in spans:
        segments.append(segment("x", now + gap, now + gap + length, fallback=fallback))
        now += gap + length
    clips = clips_of(row(*segments), ClipRules(target_s=target_s))
    assert [number for clip in clips for number in clip.segment_ids] == list(range(len(segments)))
    for clip in clips:
        group = [segments[number] for number in clip.segment_ids]
        gaps = [b["start_s"] - a["end_s"] for a, b in itertools.pairwise(group)]
        assert all(gap <= MAX_GAP_S + 1e-9 for gap in gaps)
        assert len(group) == 1 or group[-1]["end_s"] - group[0]["start_s"] <= target_s + 1e-9
    edges = [time for clip in clips for time in (clip.start_s, clip.end_s)]
    assert edges == pytest.approx(sorted(edges))
