"""Conversations: who speaks when, by name, in every format."""

from __future__ import annotations

import json

import pytest

from pipeline.results.recordings import join_rows
from pipeline.results.turns import as_conversation
from tests.results.test_exports import export, make_output, segment, transcript

NAMED = ("--merge-channels", "--channel-names", "agent,caller")


def call():
    """Rows of a call: two channels, each a row."""
    agent = [segment("hello", 0.0, 1.0), segment("this is Ann", 1.2, 2.0, fallback="dense", avg_logprob=-0.9)]
    agent += [segment("let me see", 4.0, 5.0), segment("found it", 9.0, 10.0)]
    caller = [segment("hi", 2.1, 2.5), segment("about my order", 2.6, 3.5)]
    return [transcript("call.wav", agent), transcript("call.wav", caller, channel=1)]


def test_segments_of_one_speaker_are_a_turn_until_the_other_begins_or_a_pause():
    found = as_conversation(join_rows(call()))
    assert [(one["channel"], one["start_s"], one["end_s"], one["text"]) for one in found.segments] == [
        (0, 0.0, 2.0, "hello this is Ann"),
        (1, 2.1, 3.5, "hi about my order"),
        (0, 4.0, 5.0, "let me see"),
        (0, 9.0, 10.0, "found it"),
    ]
    assert [one["id"] for one in found.segments] == [0, 1, 2, 3]
    assert (found.segments[0]["avg_logprob"], found.segments[0]["fallback"]) == (-0.9, "dense")
    assert found.text.splitlines()[:2] == ["channel 0: hello this is Ann", "channel 1: hi about my order"]


def test_words_of_a_turn_are_those_of_its_segments_if_all_have_some():
    word = {"start_s": 0.0, "end_s": 1.0, "word": " x", "probability": 1.0}
    rows = [
        transcript("a", [segment("x", 0.0, 1.0, words=[word]), segment("x", 1.0, 2.0, words=[word])]),
        transcript("a", [segment("x", 5.0, 6.0, words=[word]), segment("x", 6.0, 7.0)], channel=1),
    ]
    found = as_conversation(join_rows(rows)).segments
    assert [None if one["words"] is None else len(one["words"]) for one in found] == [2, None]


def test_turns_in_a_language_without_spaces_are_joined_without():
    rows = [
        transcript("a", [segment("今日は", 0.0, 1.0), segment("東京です", 1.0, 2.0)], language="ja"),
        transcript("a", [segment("はい", 3.0, 4.0)], channel=1, language="ja"),
    ]
    assert as_conversation(join_rows(rows)).segments[0]["text"] == "今日は東京です"


def test_a_recording_of_one_channel_stays_as_it_is():
    recording = join_rows([transcript("a", [segment("one", 0.0, 1.0), segment("two", 1.0, 2.0)])])
    assert as_conversation(recording) is recording


@pytest.mark.parametrize(
    ("kind", "file", "shown"),
    [
        ("srt", "call.wav.srt", "[agent] hello this is Ann"),
        ("vtt", "call.wav.vtt", "<v caller>hi about my order"),
        ("txt", "call.wav.txt", "[agent] hello this is Ann\n[caller] hi about my order\n"),
        ("tsv", "call.wav.tsv", "0.000\t2.000\tagent\thello this is Ann\n"),
        ("html", "call.wav.html", '<span class="speaker" dir="auto">agent</span>'),
        ("nemo", "manifest.jsonl", "agent: hello this is Ann\\ncaller: hi about my order"),
    ],
)
def test_every_format_names_the_speakers_of_a_conversation(tmp_path, kind, file, shown):
    out = make_output(tmp_path / "out", call())
    export(out, kind, *NAMED)
    assert shown in (out / "export" / file).read_text()


def test_json_lines_have_the_speaker_of_every_segment(tmp_path):
    out = make_output(tmp_path / "out", [*call(), transcript("mono.wav", [segment("x")])])
    export(out, "jsonl", *NAMED)
    lines = [json.loads(line) for line in (out / "export" / "transcripts.jsonl").read_text().splitlines()]
    found = {line["recording_id"]: [one["speaker"] for one in line["segments"]] for line in lines}
    assert found == {"call.wav": ["agent", "caller", "agent", "agent"], "mono.wav": [None]}


def test_names_are_text_and_never_markup_or_a_formula(tmp_path):
    out = make_output(tmp_path / "out", call())
    names = ("--channel-names", "<b>=1+1</b>,=cmd")
    for kind in ("srt", "vtt", "html", "tsv"):
        export(out, kind, *names)
        text = (out / "export" / f"call.wav.{kind}").read_text()
        assert "<b>" not in text or kind == "tsv"
    assert "\t'=cmd\t" in text


@pytest.mark.parametrize("names", ["agent,agent", "agent,", ","])
def test_names_that_cannot_tell_channels_apart_are_refused(tmp_path, names):
    out = make_output(tmp_path / "out", call())
    assert "must be different names" in export(out, "txt", "--channel-names", names, status=2)
