"""How good a committed output is, measured against references and without a model."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.metrics import wer
from pipeline.metrics.intervals import wer_interval
from pipeline.results import totals


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is known of a recording. `segment_starts_s` and `language` are None where nothing is known."""

    text: str
    language: str | None = None
    segment_starts_s: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ScoredRecording:
    """One recording beside its truth."""

    recording_id: str
    counts: wer.Counts
    has_text: bool
    language_right: bool | None
    start_errors_s: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A group of recordings. Ratios are None where there is nothing to divide by.

    `wer_interval` is the central 95 % of a bootstrap over recordings. `num_false_texts` counts recordings
    whose reference is empty and whose transcript is not. Start errors are in seconds, of each true
    segment's start to the nearest segment start of the transcript.
    """

    group: str
    num_recordings: int
    num_words: int
    counts: wer.Counts
    wer_interval: tuple[float, float] | None
    num_empty_references: int
    num_false_texts: int
    language_accuracy: float | None
    start_error_median_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, as the command prints them."""
        return {
            "group": self.group,
            "num_recordings": self.num_recordings,
            "num_words": self.num_words,
            "wer": self.counts.wer,
            "wer_interval": self.wer_interval,
            "num_hits": self.counts.num_hits,
            "num_substitutions": self.counts.num_substitutions,
            "num_deletions": self.counts.num_deletions,
            "num_insertions": self.counts.num_insertions,
            "num_empty_references": self.num_empty_references,
            "num_false_texts": self.num_false_texts,
            "language_accuracy": self.language_accuracy,
            "start_error_median_s": self.start_error_median_s,
        }


def score_rows(rows: Iterable[Mapping[str, Any]], truths: Mapping[str, Truth]) -> list[ScoredRecording]:
    """Score the recordings (all parts and channels of one together) that have a truth and did not fail."""
    recordings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["recording_id"] in truths:
            recordings[row["recording_id"]].append(dict(row))
    return [
        _score(recording_id, parts, truths[recording_id])
        for recording_id, parts in sorted(recordings.items())
        if all(part["status"] == "ok" for part in parts)
    ]


def _score(recording_id: str, parts: list[dict[str, Any]], truth: Truth) -> ScoredRecording:
    text = parts[0]["text"] if len(parts) == 1 else totals.join_text(parts)
    language = next((part["language"] for part in parts if part["language"]), None)
    starts = [segment["start_s"] for part in parts for segment in part["segments"]]
    return ScoredRecording(
        recording_id=recording_id,
        counts=wer.count_errors(truth.text, text, truth.language or language),
        has_text=bool(text),
        language_right=None if truth.language is None or language is None else language == truth.language,
        start_errors_s=_start_errors(truth.segment_starts_s or (), starts),
    )


def _start_errors(true_starts: Sequence[float], starts: Sequence[float]) -> tuple[float, ...]:
    return tuple(min(abs(start - true) for start in starts) for true in true_starts) if starts else ()


def evaluate(scored: Sequence[ScoredRecording], group: Callable[[str], str]) -> list[Evaluation]:
    """The figures of each group of recordings; `group` names the group of a recording_id."""
    groups: dict[str, list[ScoredRecording]] = defaultdict(list)
    for one in scored:
        groups[group(one.recording_id)].append(one)
    return [_summarise(name, members) for name, members in sorted(groups.items())]


def _summarise(group: str, members: Sequence[ScoredRecording]) -> Evaluation:
    counts = wer.total(one.counts for one in members)
    languages = [one.language_right for one in members if one.language_right is not None]
    errors = [error for one in members for error in one.start_errors_s]
    empty = [one for one in members if one.counts.num_reference_words == 0]
    return Evaluation(
        group=group,
        num_recordings=len(members),
        num_words=counts.num_reference_words,
        counts=counts,
        wer_interval=wer_interval([one.counts for one in members]),
        num_empty_references=len(empty),
        num_false_texts=sum(one.has_text for one in empty),
        language_accuracy=statistics.fmean(languages) if languages else None,
        start_error_median_s=statistics.median(errors) if errors else None,
    )
