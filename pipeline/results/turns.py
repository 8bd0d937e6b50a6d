"""Conversations: the segments of several channels as the turns of their speakers, in the order of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.engine.languages import join_texts
from pipeline.results.recordings import WholeRecording

MAX_PAUSE_S = 2.0  # a longer silence ends a turn


def as_conversation(recording: WholeRecording) -> WholeRecording:
    """A recording of several channels by turns, its text a line for each with its speaker's name.

    One of a single channel stays as it is. A turn is what one speaker says until another begins, or until a
    pause of `MAX_PAUSE_S`.
    """
    speakers = recording.speakers
    if not speakers:
        return recording
    turns: list[list[Mapping[str, Any]]] = []
    for segment in recording.segments:
        if turns and _goes_on(turns[-1][-1], segment):
            turns[-1].append(segment)
        else:
            turns.append([segment])
    segments = [{**_turn(turn, recording.text_language), "id": number} for number, turn in enumerate(turns)]
    lines = [f"{speakers[turn['channel']]}: {turn['text']}" for turn in segments]
    text = None if recording.text is None else "\n".join(lines)
    return replace(recording, segments=tuple(segments), text=text)


def _goes_on(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    is_same = before["channel"] == after["channel"]
    return is_same and after["start_s"] - before["end_s"] <= MAX_PAUSE_S


def _turn(segments: Sequence[Mapping[str, Any]], language: str | None) -> dict[str, Any]:
    """Segments of one speaker as one; what says how sure it is, is that of the least sure."""
    fallbacks = dict.fromkeys(one["fallback"] for one in segments if one["fallback"] is not None)
    words = [one["words"] for one in segments]
    return {
        **min(segments, key=lambda one: one["avg_logprob"]),
        "part": segments[0]["part"],
        "start_s": segments[0]["start_s"],
        "end_s": max(one["end_s"] for one in segments),
        "text": join_texts((one["text"], language) for one in segments),
        "fallback": "; ".join(fallbacks) or None,
        "words": None if None in words else [word for own in words for word in own],
    }
