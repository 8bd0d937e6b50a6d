"""How good a committed output is, measured against references and without a model."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.metrics import wer
from pipeline.metrics.intervals import wer_interval
from pipeline.results.faults import Faults
from pipeline.results.recordings import WholeRecording


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


def score_recordings(
    recordings: Iterable[WholeRecording], truths: Mapping[str, Truth], faults: Faults
) -> list[ScoredRecording]:
    """Score the recordings that have a truth and did not fail, in the order of their ids.

    One that cannot be scored is one of the `faults`.
    """
    scored = []
    for recording in recordings:
        truth = truths.get(recording.recording_id)
        if truth is not None and recording.text is not None:
            with faults.named(recording.recording_id):
                scored.append(_score(recording, truth))
    return sorted(scored, key=lambda one: one.recording_id)


def _score(recording: WholeRecording, truth: Truth) -> ScoredRecording:
    language, text = recording.language, recording.text or ""
    counted_in = recording.text_language if recording.is_translated else truth.language or language
    starts = [segment["start_s"] for segment in recording.segments]
    return ScoredRecording(
        recording_id=recording.recording_id,
        counts=wer.count_errors(truth.text, text, counted_in),
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
