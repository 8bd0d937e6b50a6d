"""Figures of a report by what its recordings are: in which languages, in which folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from pipeline.metrics import intervals, wer


@dataclass
class SliceFacts:
    """What one output has in one language or folder."""

    recordings: set[str] = field(default_factory=set)  # ids
    failed: set[str] = field(default_factory=set)  # and of those with a row that failed
    speech_s: float = 0.0
    num_segments: int = 0
    segments_s: float = 0.0
    dropped_s: float = 0.0  # seconds of segments, each times the share of encoder positions dropped

    def add_segment(self, segment: Mapping[str, Any]) -> None:
        """Count a segment of `TRANSCRIPTS`."""
        seconds = segment["end_s"] - segment["start_s"]
        self.num_segments += 1
        self.segments_s += seconds
        self.dropped_s += seconds * segment["sparsity"]


@dataclass(frozen=True, kw_only=True)
class SliceFigures:
    """What is in one language, as its segments say, or in one folder; ratios as in `GroupFigures`.

    A recording with speech in two languages counts in both, its words in the one of its most speech.
    `sparsity_mean` is the share of encoder positions dropped of what its segments were read from, by their
    seconds; `wer_low` and `wer_high` are the central 95 % of a bootstrap over recordings.
    """

    group: str
    num_recordings: int
    num_failed: int
    num_segments: int
    speech_s: float
    sparsity_mean: float | None
    wer: float | None
    wer_low: float | None
    wer_high: float | None


def folder_of(recording_id: str) -> str:
    """The folder, the tar file or the Parquet file of a recording below its input; "" at the top."""
    return recording_id.rpartition("/")[0]


def by_language(
    facts: Iterable[tuple[str, SliceFacts]],
    scored: Iterable[tuple[str | None, wer.Counts]],
    wanted: Collection[str] = (),
) -> tuple[SliceFigures, ...]:
    """Languages, most speech first; wanted: those alone, all if empty."""
    return tuple(one for one in _slices(facts, scored) if not wanted or one.group in wanted)


def by_folder(
    facts: Iterable[tuple[str, SliceFacts]], scored: Iterable[tuple[str, wer.Counts]]
) -> tuple[SliceFigures, ...]:
    """The folders right below the one that all recordings are in, most speech first."""
    facts = list(facts)
    levels = zip(*(folder.split("/") for folder, _ in facts), strict=False)
    depth = 1 + sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, levels))

    def name(folder: str) -> str:
        return "/".join(folder.split("/")[:depth]) or "."

    return tuple(
        _slices([(name(folder), found) for folder, found in facts], [(name(f), one) for f, one in scored])
    )


def _slices(
    facts: Iterable[tuple[str, SliceFacts]], scored: Iterable[tuple[str | None, wer.Counts]]
) -> Iterator[SliceFigures]:
    members: defaultdict[str, list[SliceFacts]] = defaultdict(list)
    for name, found in facts:
        members[name].append(found)
    counts: defaultdict[str | None, list[wer.Counts]] = defaultdict(list)
    for group, one in scored:
        counts[group].append(one)
    figures = (_figures(name, found, counts[name]) for name, found in members.items())
    yield from sorted(figures, key=lambda one: (-one.speech_s, one.group))


def _figures(group: str, members: list[SliceFacts], scored: list[wer.Counts]) -> SliceFigures:
    interval = intervals.wer_interval(scored) if scored else None
    segments_s = sum(one.segments_s for one in members)
    return SliceFigures(
        group=group,
        num_recordings=sum(len(one.recordings) for one in members),
        num_failed=sum(len(one.failed) for one in members),
        num_segments=sum(one.num_segments for one in members),
        speech_s=sum(one.speech_s for one in members),
        sparsity_mean=sum(one.dropped_s for one in members) / segments_s if segments_s else None,
        wer=wer.total(scored).wer,
        wer_low=interval[0] if interval else None,
        wer_high=interval[1] if interval else None,
    )
