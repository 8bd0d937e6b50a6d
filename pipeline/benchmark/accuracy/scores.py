"""What a program got right: words, those at edges and ends and where nobody speaks; starts; languages."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np

from pipeline.benchmark.accuracy.corpus import Spoken
from pipeline.engine.languages import UNSPACED_LANGUAGES
from pipeline.metrics import wer
from pipeline.metrics.intervals import wer_interval

EDGE_WORDS = 1  # a word is lost at an edge if it is missing next to it or one word further


@dataclass(frozen=True, kw_only=True)
class Score:
    """One recording.

    num_lost, num_doubled: words at `num_edges` edges between windows. num_invented: where nobody speaks.
    late_s: by how many seconds segments start after the sound of their sentences; late_as_stated_s: after the
    corpus's own times. language_right: None where it was given.
    """

    counts: wer.Counts
    first_right: bool = False
    last_right: bool = False
    num_edges: int = 0
    num_lost: int = 0
    num_doubled: int = 0
    late_s: tuple[float, ...] = ()
    late_as_stated_s: tuple[float, ...] = ()
    num_invented: int = 0
    language_right: bool | None = None


def score(
    one: Spoken, heard: Mapping[str, Any], *, asked_language: bool, onsets_s: Sequence[float] = ()
) -> Score:
    """A recording beside what a program made of it. onsets_s: where the sound of its sentences begins."""
    counts = wer.count_errors(one.text, heard["text"], one.language)
    if one.is_silent:
        return Score(counts=wer.Counts(), num_invented=counts.num_insertions)
    alignment = _Alignment(one, heard["segments"])
    edges = [bisect.bisect_left(alignment.starts_s, edge) for edge in heard["edges_s"]]
    num_lost, num_doubled = alignment.at_edges(edges)
    return Score(
        counts=counts,
        first_right=alignment.is_right(0),
        last_right=alignment.is_right(alignment.num_reference - 1),
        num_edges=len(edges),
        num_lost=num_lost,
        num_doubled=num_doubled,
        late_s=tuple(alignment.late_s(one, onsets_s)),
        late_as_stated_s=tuple(alignment.late_s(one, [start_s for start_s, _ in one.sentences])),
        language_right=heard["language"] == one.language if asked_language else None,
    )


def _chunks(reference: str, said: str) -> list[jiwer.AlignmentChunk]:
    return jiwer.process_words([reference], [said]).alignments[0] if reference and said else []


def _words(text: str, language: str) -> list[str]:
    """The words that are compared, characters in languages that are counted in them."""
    compared = wer.normalised(text, language)
    return list(compared) if language in UNSPACED_LANGUAGES else compared.split()


class _Alignment:
    """The words of a reference beside those of a program's segments."""

    def __init__(self, one: Spoken, segments: Sequence[tuple[float, float, str]]) -> None:
        self._language = one.language
        words = [(_words(text, one.language), start_s) for start_s, _, text in segments]
        self.starts_s = [start_s for own, start_s in words for _ in own]
        self._begins = {sum(len(own) for own, _ in words[:n]) for n in range(len(words))}
        reference = _words(one.text, one.language)
        self.num_reference = len(reference)
        said = [word for own, _ in words for word in own]
        self._chunks = _chunks(" ".join(reference), " ".join(said))
        self._right = {
            chunk.ref_start_idx + n: chunk.hyp_start_idx + n
            for chunk in self._chunks if chunk.type == "equal"
            for n in range(chunk.ref_end_idx - chunk.ref_start_idx)
        }  # fmt: skip

    def is_right(self, place: int) -> bool:
        """Whether a word of the reference was heard."""
        return place in self._right

    def at_edges(self, edges: Sequence[int]) -> tuple[int, int]:
        """Words missing and words too many next to places between the words that were heard."""
        lost = doubled = 0
        for chunk in self._chunks:
            near = any(
                chunk.hyp_start_idx - EDGE_WORDS <= edge <= chunk.hyp_end_idx + EDGE_WORDS for edge in edges
            )
            if near and chunk.type == "delete":
                lost += chunk.ref_end_idx - chunk.ref_start_idx
            if near and chunk.type == "insert":
                doubled += chunk.hyp_end_idx - chunk.hyp_start_idx
        return lost, doubled

    def late_s(self, one: Spoken, starts_s: Sequence[float]) -> Iterator[float]:
        """Start of each segment that begins with the first word of a sentence, less that sentence's start."""
        place = 0
        for start_s, (_, text) in zip(starts_s, one.sentences, strict=False):
            heard = self._right.get(place)
            if heard is not None and heard in self._begins:
                yield self.starts_s[heard] - start_s
            place += len(_words(text, self._language))


def summary(scores: Sequence[Score]) -> dict[str, Any]:
    """The figures of some recordings; None where there is nothing to divide by."""
    counts = wer.total(one.counts for one in scores)
    interval = wer_interval([one.counts for one in scores])
    off_s = np.abs([late for one in scores for late in one.late_s])
    off_as_stated_s = np.abs([late for one in scores for late in one.late_as_stated_s])
    asked = [one.language_right for one in scores if one.language_right is not None]
    return {
        "num_recordings": len(scores),
        "num_words": counts.num_reference_words,
        "wer": counts.wer,
        "wer_interval": interval,
        "num_substitutions": counts.num_substitutions,
        "num_deletions": counts.num_deletions,
        "num_insertions": counts.num_insertions,
        "num_first_right": sum(one.first_right for one in scores),
        "num_last_right": sum(one.last_right for one in scores),
        "num_edges": sum(one.num_edges for one in scores),
        "num_lost_at_edges": sum(one.num_lost for one in scores),
        "num_doubled_at_edges": sum(one.num_doubled for one in scores),
        "num_invented": sum(one.num_invented for one in scores),
        "num_starts": len(off_s),
        "start_error_median_s": _quantile(off_s, 0.5),
        "start_error_p95_s": _quantile(off_s, 0.95),
        "start_error_as_stated_median_s": _quantile(off_as_stated_s, 0.5),
        "start_error_as_stated_p95_s": _quantile(off_as_stated_s, 0.95),
        "language_accuracy": sum(asked) / len(asked) if asked else None,
    }


def _quantile(values: np.ndarray, share: float) -> float | None:
    return float(np.quantile(values, share)) if len(values) else None
