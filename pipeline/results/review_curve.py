"""How good a ranking is: the errors found against the time listened, and weights fitted to what is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from pipeline.engine.languages import UNSPACED_LANGUAGES
from pipeline.metrics.wer import normalised
from pipeline.results.recordings import WholeRecording
from pipeline.results.review import (
    JUMP_S,
    REASONS,
    WEIGHTS,
    Passage,
    num_units,
    passages,
    ranked,
    signs_of,
)

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
# Before anything is known: what a sign is worth where the data has few of it, and how firmly that is held.
PRIOR = {
    "logprob": 1.0, "window": 0.5, "fallback": 0.5, "repetitive": 0.5, "no_speech": 0.5,
    "doubt": 1.0, "language": 0.5, "fast": 0.5, "slow": 0.3, "short": 0.1,
}  # fmt: skip
RIDGE = 10.0
NUM_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Known:
    """A recording with its passages and the word errors in each; `num_missed` lie in no passage."""

    recording: WholeRecording
    errors: tuple[int, ...]
    num_missed: int


def known(recording: WholeRecording, reference: str) -> Known:
    """Word errors by segment: texts are aligned whole, and what was left out counts where it is missing."""
    language = recording.text_language
    said = [_words(segment["text"], language) for segment in recording.segments]
    owners = [number for number, words in enumerate(said) for _ in words]
    wanted, heard = _words(reference, language), [word for words in said for word in words]
    errors = [0] * len(said)
    if not owners:
        return Known(recording=recording, errors=tuple(errors), num_missed=len(wanted))
    output = jiwer.process_words([" ".join(wanted)], [" ".join(heard)])
    for chunk in output.alignments[0]:
        if chunk.type == "delete":
            errors[owners[min(chunk.hyp_start_idx, len(owners) - 1)]] += (
                chunk.ref_end_idx - chunk.ref_start_idx
            )
        elif chunk.type != "equal":
            for place in range(chunk.hyp_start_idx, chunk.hyp_end_idx):
                errors[owners[place]] += 1
    return Known(recording=recording, errors=tuple(errors), num_missed=0)


def _words(text: str, language: str | None) -> list[str]:
    text = normalised(text, language)
    return list(text) if language in UNSPACED_LANGUAGES else text.split()


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Errors found when a share of the audio with text is heard, in the order of a ranking.

    found: share of all errors by share of audio. half_share: the share of audio that holds half of the
    errors, None where no passages do. half_listening_share: the same with the time to find each place.
    """

    num_errors: int
    hours: float
    found: dict[float, float]
    half_share: float | None
    half_listening_share: float | None


def curve(recordings: Sequence[Known], weights: Mapping[str, float] = WEIGHTS) -> Curve:
    """What listening in the order of the ranking finds."""
    errors: dict[Passage, int] = {}
    for one in recordings:
        errors |= dict(zip(passages(one.recording, weights), one.errors, strict=True))
    order = ranked(errors)
    heard_s = np.cumsum([one.end_s - one.start_s for one in order]) if order else np.zeros(1)
    hits = np.cumsum([errors[one] for one in order]) if order else np.zeros(1)
    num_errors = int(hits[-1]) + sum(one.num_missed for one in recordings)
    shares = heard_s / max(heard_s[-1], 1e-9)
    enough = np.flatnonzero(2 * hits >= num_errors)
    half = int(enough[0]) if len(enough) and num_errors else None
    return Curve(
        num_errors=num_errors,
        hours=float(heard_s[-1]) / 3600,
        found={
            share: float(np.interp(share, [0.0, *shares], [0, *hits])) / max(1, num_errors)
            for share in SHARES
        },
        half_share=None if half is None else float(shares[half]),
        half_listening_share=None
        if half is None
        else float(shares[half]) + (half + 1) * JUMP_S / max(float(heard_s[-1]), 1e-9),
    )


def halves(recordings: Sequence[Known]) -> tuple[list[Known], list[Known]]:
    """Recordings parted in two by a hash of their ids."""
    parted: tuple[list[Known], list[Known]] = ([], [])
    for one in recordings:
        digest = hashlib.sha256(one.recording.recording_id.encode()).digest()
        parted[digest[0] % 2].append(one)
    return parted


def fit(recordings: Sequence[Known]) -> dict[str, float]:
    """Weights of a logistic regression of word errors on the signs of `REASONS`; none is below 0.

    Newton's method, with a ridge around `PRIOR`. A sign whose weight would be negative is left out: none
    speaks for a text.
    """
    names = list(REASONS)
    rows, wrong, words = [], [], []
    for one in recordings:
        for segment, num in zip(one.recording.segments, one.errors, strict=True):
            length = max(num_units(segment["text"], one.recording.text_language), 1)
            signs = signs_of(one.recording, segment)
            rows.append([signs[name] for name in names])
            words.append(length)
            wrong.append(min(num, length))
    kept = list(range(len(names)))
    while True:
        solution = _logistic(
            np.array(rows)[:, kept], np.array(wrong), np.array(words), [PRIOR[names[place]] for place in kept]
        )
        negative = [place for place, weight in zip(kept, solution[1:], strict=True) if weight < 0]
        if not negative:
            weights = dict.fromkeys(names, 0.0) | {
                names[place]: float(weight) for place, weight in zip(kept, solution[1:], strict=True)
            }
            return {"bias": float(solution[0])} | weights
        kept = [place for place in kept if place not in negative]


def _logistic(signs: np.ndarray, wrong: np.ndarray, words: np.ndarray, prior: Sequence[float]) -> np.ndarray:
    """The bias and the weights by which `wrong` of `words` follow from signs [segments, signs]."""
    inputs = np.column_stack([np.ones(len(signs)), signs])
    expected = np.array([0.0, *prior])
    weights = expected.copy()
    ridge = RIDGE * np.eye(len(weights))
    ridge[0, 0] = 0.0
    for _ in range(NUM_STEPS):
        rate = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (wrong - words * rate) - ridge @ (weights - expected)
        bend = inputs.T @ (inputs * (words * rate * (1 - rate))[:, None]) + ridge
        step = np.linalg.solve(bend + 1e-9 * np.eye(len(weights)), slope)
        weights = weights + step / max(1.0, float(np.abs(step).max()))  # a whole step may overshoot
    return weights
