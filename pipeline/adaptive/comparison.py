"""Windows decoded three ways: how their texts differ, and what each way took."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipeline.adaptive.bounds import Draw, certainty
from pipeline.engine.audio import SAMPLE_RATE, WINDOW_SAMPLES
from pipeline.longform.placed import (
    PlacedResult,
    PlacedWindow,
    Root,
    first_pass_logprob,
    text_logprob,
    text_of,
)
from pipeline.metrics import wer

SHIFT_S = 0.13  # how much earlier a window is begun when dense is compared with itself


def begun_earlier(window: PlacedWindow) -> PlacedWindow:
    """The same window, begun `SHIFT_S` earlier with silence before it.

    A window that has no room for that begins as much later where its speech leaves that, else its end is cut.
    """
    shift = round(SHIFT_S * SAMPLE_RATE)
    has_room = len(window.samples) + shift <= WINDOW_SAMPLES
    if not has_room and window.speech and window.speech[0][0] >= window.start_s + SHIFT_S:
        return replace(
            window,
            start_s=window.start_s + SHIFT_S,
            root_s=window.root_s + SHIFT_S,
            samples=window.samples[shift:],
        )
    room = window.samples[: WINDOW_SAMPLES - shift]
    silence = np.zeros(shift, window.samples.dtype)
    return replace(
        window,
        start_s=window.start_s - SHIFT_S,
        root_s=window.root_s - SHIFT_S,
        samples=np.concatenate([silence, room]),
    )


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One window with its tails, sparse beside dense.

    draw: how the texts differ. kept_positions: what was kept of total_positions; retried_positions: those of
    windows decoded again. dense_positions: the same two added up for the dense decoding, which fails and
    tries again too. logprob, dense_logprob: see `longform.first_pass_logprob`; the former is None also where
    sparse heard another language, in which dense would decode it again.
    """

    draw: Draw
    kept_positions: int
    total_positions: int
    retried_positions: int
    dense_positions: int
    dense_device_s: float
    sparse_device_s: float
    logprob: float | None
    dense_logprob: float | None

    def as_dict(self) -> dict[str, Any]:
        """The counts and times by name, those of the draw among them."""
        named = asdict(self)
        return named.pop("draw") | named


def by_root(results: Iterable[PlacedResult]) -> dict[Root, list[PlacedResult]]:
    """Results of windows with those of their tails, in the order of time."""
    groups: defaultdict[Root, list[PlacedResult]] = defaultdict(list)
    for done in sorted(results, key=lambda done: done.window.start_s):
        groups[done.window.root].append(done)
    return dict(groups)


def heard_languages(results: Sequence[PlacedResult]) -> dict[Root, str | None]:
    """The language that each window was transcribed in, of those cut out of it the first one's."""
    return {done.window.root: done.result.language for done in reversed(results) if not done.is_aside}


def compare(
    dense: Sequence[PlacedResult], shifted: Sequence[PlacedResult], sparse: Sequence[PlacedResult]
) -> Compared:
    """The results of one window and its tails: dense, dense begun earlier, sparse."""
    language = dense[0].result.language
    is_same_language = sparse[0].result.language == language
    texts = text_of(dense), text_of(shifted), text_of(sparse)
    return Compared(
        draw=compare_texts(*texts, dense[0].result.written_language, text_logprob(dense)),
        kept_positions=sum(done.result.kept_positions for done in sparse),
        total_positions=sum(done.result.total_positions for done in sparse),
        retried_positions=_retried_positions(sparse),
        dense_positions=sum(d.result.total_positions for d in dense) + _retried_positions(dense),
        dense_device_s=device_s(dense),
        sparse_device_s=device_s(sparse),
        logprob=first_pass_logprob(sparse) if is_same_language else None,
        dense_logprob=first_pass_logprob(dense),
    )


def compare_texts(dense: str, shifted: str, sparse: str, language: str | None, logprob: float | None) -> Draw:
    """How the texts of a window differ: dense, dense begun earlier, sparse.

    logprob: of the dense text (`longform.text_logprob`).
    """
    counts = wer.count_errors(dense, sparse, language)
    return Draw(
        num_words=counts.num_reference_words,
        sparse_errors=counts.num_errors,
        shifted_errors=wer.count_errors(shifted, sparse, language).num_errors,
        dense_errors=wer.count_errors(dense, shifted, language).num_errors,
        certainty=certainty(logprob),
    )


def _retried_positions(results: Iterable[PlacedResult]) -> int:
    return sum(done.result.total_positions for done in results if done.result.fallback is not None)


def device_s(results: Iterable[PlacedResult]) -> float:
    """Seconds the device worked for these windows, retries included."""
    return math.fsum(done.result.device_s for done in results)
