"""Where a recording is cut: windows of at most 30 s over its speech, and cuts between its parts.

A window is one contiguous span of the recording, inner silences kept. Together the windows cover the
speech exactly once, whatever the voice activity detector says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.engine.audio import SAMPLE_RATE

MAX_WINDOW_S = 30.0
LONG_ENOUGH_S = 15.0  # a window longer than this ends at a gap longer than MAX_GAP_S
MAX_GAP_S = 2.0
STEP = 160  # samples: loudness is looked at in steps of 10 ms
QUIET_STEPS = 20  # a cut lies in the middle of 200 ms that are as quiet as any
SPLIT_REACH_S = 10.0  # speech that is too long is split in the last 10 s that fit

Span = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A span of a recording; `speech` are the spans of speech inside it. Times in seconds."""

    start_s: float
    end_s: float
    speech: tuple[Span, ...]


def cut_windows(speech: Sequence[Span], samples: np.ndarray) -> list[Window]:
    """Cut a stretch of audio into windows that cover `speech` exactly once.

    Args:
        speech: spans in seconds, ascending and apart from one another.
        samples: int16 at 16 kHz, [time]; where speech is longer than a window it is split at its quietest
            place.
    """
    windows: list[list[Span]] = []
    for start_s, end_s in _short_spans(speech, samples):
        if windows and _joins(windows[-1], start_s, end_s):
            windows[-1].append((start_s, end_s))
        else:
            windows.append([(start_s, end_s)])
    return [Window(start_s=spans[0][0], end_s=spans[-1][1], speech=tuple(spans)) for spans in windows]


def _joins(spans: list[Span], start_s: float, end_s: float) -> bool:
    """Whether a window of `spans` grows over the next span."""
    first_s, last_s = spans[0][0], spans[-1][1]
    if end_s - first_s > MAX_WINDOW_S:
        return False
    return start_s - last_s <= MAX_GAP_S or last_s - first_s <= LONG_ENOUGH_S


def _short_spans(speech: Sequence[Span], samples: np.ndarray) -> Iterator[Span]:
    """Spans of at most 30 s; the longer ones split where it is quietest."""
    for start_s, end_s in speech:
        left_s = start_s
        while end_s - left_s > MAX_WINDOW_S:
            cut_s = _quietest_s(samples, left_s + MAX_WINDOW_S - SPLIT_REACH_S, left_s + MAX_WINDOW_S)
            yield left_s, cut_s
            left_s = cut_s
        yield left_s, end_s


def even_windows(duration_s: float) -> list[Window]:
    """Consecutive windows of 30 s over all of a recording, for when voice activity is off."""
    num = int(np.ceil(duration_s / MAX_WINDOW_S))
    edges = [min(i * MAX_WINDOW_S, duration_s) for i in range(num + 1)]
    return [Window(start_s=start, end_s=end, speech=((start, end),)) for start, end in pairwise(edges)]


def find_cut(minute: np.ndarray) -> float:
    """Where a recording is cut near the middle of a minute of it, in seconds from the minute's start.

    A pure function of the samples, so that both parts find the same cut. The quietest place wins; of
    places that are about as quiet (3 dB) the one nearest to the middle.

    Args:
        minute: int16 at 16 kHz, [time].
    """
    loudness = _loudness(minute)
    if not len(loudness):
        return 0.0
    level = np.floor(10 * np.log10(loudness + 1.0) / 3.0)
    distance = np.abs(np.arange(len(level)) - len(level) / 2)
    best = np.lexsort((distance, level))[0]
    return float((best + QUIET_STEPS // 2) * STEP) / SAMPLE_RATE


def _quietest_s(samples: np.ndarray, from_s: float, to_s: float) -> float:
    first = round(from_s * SAMPLE_RATE)
    loudness = _loudness(samples[first : round(to_s * SAMPLE_RATE)])
    return from_s + float((np.argmin(loudness) + QUIET_STEPS // 2) * STEP) / SAMPLE_RATE


def _loudness(samples: np.ndarray) -> np.ndarray:
    """Mean square of every 200 ms, in steps of 10 ms; position i is about step i + 10."""
    num_steps = len(samples) // STEP
    if num_steps < QUIET_STEPS:
        return np.zeros(0)
    steps = samples[: num_steps * STEP].reshape(num_steps, STEP)
    power = np.einsum("ij,ij->i", steps, steps, dtype=np.float64) / STEP
    sums = np.concatenate([[0.0], np.cumsum(power)])
    return (sums[QUIET_STEPS:] - sums[:-QUIET_STEPS]) / QUIET_STEPS
