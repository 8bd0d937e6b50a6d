"""Windows decoded both ways: how their texts differ, and what each way took."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.longform.placed import PlacedResult, Root, first_pass_logprob, text_of
from pipeline.metrics import wer


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One window with its tails, sparse beside dense.

    num_errors: word edits between the texts, normalised as in scoring; num_words: words of the dense text.
    kept_positions: what was kept of total_positions; retried_positions: those of windows decoded again.
    dense_positions: the same two added up for the dense decoding, which fails and tries again too.
    logprob, dense_logprob: see `longform.first_pass_logprob`; the former is None also where sparse heard
        another language, in which dense would decode it again.
    """

    num_errors: int
    num_words: int
    kept_positions: int
    total_positions: int
    retried_positions: int
    dense_positions: int
    dense_device_s: float
    sparse_device_s: float
    logprob: float | None
    dense_logprob: float | None


def by_root(results: Iterable[PlacedResult]) -> dict[Root, list[PlacedResult]]:
    """Results of windows with those of their tails, in the order of time."""
    groups: defaultdict[Root, list[PlacedResult]] = defaultdict(list)
    for done in sorted(results, key=lambda done: done.window.start_s):
        groups[done.window.root].append(done)
    return dict(groups)


def compare(dense: Sequence[PlacedResult], sparse: Sequence[PlacedResult]) -> Compared:
    """The results of one window and its tails, decoded both ways."""
    language = dense[0].result.language
    is_same_language = sparse[0].result.language == language
    counts = wer.count_errors(text_of(dense), text_of(sparse), dense[0].result.written_language)
    return Compared(
        num_errors=counts.num_errors,
        num_words=counts.num_reference_words,
        kept_positions=sum(done.result.kept_positions for done in sparse),
        total_positions=sum(done.result.total_positions for done in sparse),
        retried_positions=_retried_positions(sparse),
        dense_positions=sum(d.result.total_positions for d in dense) + _retried_positions(dense),
        dense_device_s=device_s(dense),
        sparse_device_s=device_s(sparse),
        logprob=first_pass_logprob(sparse) if is_same_language else None,
        dense_logprob=first_pass_logprob(dense),
    )


def _retried_positions(results: Iterable[PlacedResult]) -> int:
    return sum(done.result.total_positions for done in results if done.result.fallback is not None)


def device_s(results: Iterable[PlacedResult]) -> float:
    """Seconds the device worked for these windows, retries included."""
    return math.fsum(done.result.device_s for done in results)
