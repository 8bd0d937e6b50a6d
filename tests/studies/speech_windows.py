"""Windows of real recordings with what is said in them: whole sentences side by side, or short recordings."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.benchmark.accuracy.corpus import Spoken, read_corpus
from pipeline.benchmark.accuracy.programs import decoded
from pipeline.engine.audio import SAMPLE_RATE, WINDOW_S

FULL_S = 15.0  # a window from here on counts as full


@dataclass(frozen=True, kw_only=True)
class SpeechWindow:
    """name: the file and the second it starts at. samples: float32, 16 kHz, at most 30 s."""

    name: str
    samples: np.ndarray
    language: str
    reference: str

    @property
    def is_full(self) -> bool:
        return len(self.samples) >= FULL_S * SAMPLE_RATE


def speech_windows(manifests: Sequence[Path], *, limit: int | None = None) -> list[SpeechWindow]:
    """The windows of all manifests in an order that is drawn once, so that the first are a sample.

    A recording longer than a window needs a `parts.tsv` beside it; one without is left out.
    """
    recordings = [one for manifest in manifests for one in read_corpus(manifest) if not one.is_silent]
    cuts = [(one, *cut) for one in recordings for cut in _cuts(one)]
    random.Random(0).shuffle(cuts)
    return [_window(*cut) for cut in cuts[:limit]]


def _cuts(one: Spoken) -> Iterator[tuple[float, float, str]]:
    """Start, end and text of each window."""
    if one.duration_s <= WINDOW_S:
        yield 0.0, one.duration_s, one.text
        return
    ends = [start_s for start_s, _ in one.sentences[1:]] + [one.duration_s]
    first = 0
    for number in range(len(one.sentences)):
        is_last = number + 1 == len(one.sentences)
        start_s = one.sentences[first][0]
        if is_last or ends[number + 1] - start_s > WINDOW_S:
            if ends[number] - start_s <= WINDOW_S:
                yield start_s, ends[number], " ".join(text for _, text in one.sentences[first : number + 1])
            first = number + 1


_samples: dict[Path, np.ndarray] = {}


def _window(one: Spoken, start_s: float, end_s: float, reference: str) -> SpeechWindow:
    if one.path not in _samples:
        _samples[one.path] = decoded(one)
    return SpeechWindow(
        name=f"{one.path.parent.name}/{one.path.name}@{start_s:.2f}",
        samples=_samples[one.path][round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)],
        language=one.language,
        reference=reference,
    )
