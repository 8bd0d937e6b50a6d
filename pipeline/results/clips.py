"""Clips for training: which segments are taken, joined with which neighbours, and why not. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.engine.languages import join_texts

MAX_GAP_S = 1.0  # of silence inside of a joined clip
PAD_S = 0.1  # of audio around a clip, where its neighbours leave room


@dataclass(frozen=True, kw_only=True)
class ClipRules:
    """What is taken. Seconds are of audio.

    target_s: neighbours are joined up to this length; 0: segments stay alone. languages: those that are
    taken, all if empty. with_fallback: also what was decoded again.
    """

    target_s: float = 0.0
    min_s: float = 1.0
    max_s: float = 30.0
    min_logprob: float = -0.7
    max_compression: float = 2.4
    with_fallback: bool = False
    languages: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The rules by name."""
        return asdict(self) | {"languages": sorted(self.languages)}


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One segment, or several in one language joined; `reason` says why it is left out, None: it is taken.

    start_s, end_s: seconds in the recording, the audio around it included. avg_logprob and the other figures:
    those of its worst segment.
    """

    segment_ids: tuple[int, ...]
    start_s: float
    end_s: float
    text: str
    language: str | None
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    reason: str | None


def clips_of(row: Mapping[str, Any], rules: ClipRules) -> list[Clip]:
    """The clips of a row of TRANSCRIPTS, every segment of it in one of them, in the order of time."""
    segments = [
        {**segment, "language": segment.get("language") or row["language"]}
        for segment in row["segments"] or []
    ]
    is_copy = row["same_as"] is not None  # a model that learns from it learns it once
    refusals = ["copy" if is_copy else _refusal(segment, rules) for segment in segments]
    found = []
    for first, last in _runs(segments, refusals, rules):
        group = segments[first : last + 1]
        start_s, end_s = _bounds(segments, first, last)
        reason = refusals[first] or _refused_length(group[-1]["end_s"] - group[0]["start_s"], rules)
        found.append(
            Clip(
                segment_ids=tuple(segment["id"] for segment in group),
                start_s=start_s,
                end_s=end_s,
                text=join_texts(
                    (segment["text"], row["text_language"] or segment["language"]) for segment in group
                ),
                language=group[0]["language"],
                avg_logprob=min(segment["avg_logprob"] for segment in group),
                compression_ratio=max(segment["compression_ratio"] for segment in group),
                no_speech_prob=max(segment["no_speech_prob"] for segment in group),
                reason=reason,
            )
        )
    return found


def _refusal(segment: Mapping[str, Any], rules: ClipRules) -> str | None:
    """Why a segment is left out whatever stands beside it."""
    if not segment["text"].strip():
        return "text"
    if rules.languages and segment["language"] not in rules.languages:
        return "language"
    if segment["fallback"] is not None and not rules.with_fallback:
        return "fallback"
    if segment["avg_logprob"] < rules.min_logprob:
        return "logprob"
    return "compression" if segment["compression_ratio"] > rules.max_compression else None


def _refused_length(duration_s: float, rules: ClipRules) -> str | None:
    if duration_s < rules.min_s:
        return "short"
    return "long" if duration_s > rules.max_s else None


def _runs(
    segments: Sequence[Mapping[str, Any]], refusals: Sequence[str | None], rules: ClipRules
) -> Iterator[tuple[int, int]]:
    """First and last segment of each clip."""
    first = 0
    for place in range(1, len(segments) + 1):
        if place == len(segments) or not _joins(segments, refusals, first, place, rules):
            yield first, place - 1
            first = place


def _joins(
    segments: Sequence[Mapping[str, Any]],
    refusals: Sequence[str | None],
    first: int,
    place: int,
    rules: ClipRules,
) -> bool:
    """Whether a segment goes into the clip that begins with `first` and ends before it."""
    if refusals[place] is not None or refusals[place - 1] is not None:
        return False
    if segments[place]["language"] != segments[first]["language"]:
        return False
    gap_s = segments[place]["start_s"] - segments[place - 1]["end_s"]
    return gap_s <= MAX_GAP_S and segments[place]["end_s"] - segments[first]["start_s"] <= rules.target_s


def _bounds(segments: Sequence[Mapping[str, Any]], first: int, last: int) -> tuple[float, float]:
    """The times of a clip, with `PAD_S` around it or half of the silence to its neighbours."""
    start_s, end_s = segments[first]["start_s"], segments[last]["end_s"]
    before_s = start_s - (segments[first - 1]["end_s"] if first else 0.0)
    after_s = segments[last + 1]["start_s"] - end_s if last + 1 < len(segments) else 2 * PAD_S
    return start_s - min(PAD_S, max(0.0, before_s / 2)), end_s + min(PAD_S, max(0.0, after_s / 2))
