"""Where a recording is cut: windows of at most 30 s over its speech, and cuts between its parts.

A window is one contiguous span of the recording, inner silences kept, with some of the pauses before and
after it. Together the windows cover the speech exactly once, whatever the voice activity detector says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from pipeline.engine.audio import (
    POSITION_SAMPLES,
    SAMPLE_RATE,
    SILENT_DB,
    WINDOW_S,
    quiet_middle_s,
    quietest_s,
)

MAX_WINDOW_S = WINDOW_S
LONG_ENOUGH_S = 15.0  # a window longer than this ends at a gap longer than MAX_GAP_S
MAX_GAP_S = 2.0
RUN_UP_S = 1.0  # what a window takes of the pauses before and after its speech
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
    return _with_room(windows, len(samples) / SAMPLE_RATE)


def _with_room(windows: Sequence[Sequence[Span]], duration_s: float) -> list[Window]:
    """Windows over some speech each, and what they take of the pauses around it, at most half of one.

    A recording of at most 30 s is one window as it is: every window is 30 s long to the model.
    """
    if windows and duration_s <= MAX_WINDOW_S:
        return [Window(start_s=0.0, end_s=duration_s, speech=tuple(chain(*windows)))]
    middles_s = [(left[-1][1] + right[0][0]) / 2 for left, right in pairwise(windows)]
    limits_s = pairwise([0.0, *middles_s, duration_s])
    found = []
    for spans, (from_s, to_s) in zip(windows, limits_s, strict=False):
        first_s, last_s = spans[0][0], spans[-1][1]
        room_s = min(RUN_UP_S, math.floor((MAX_WINDOW_S - (last_s - first_s)) * 50) / 100)  # to 10 ms
        start_s, end_s = max(from_s, first_s - room_s), min(to_s, last_s + room_s)
        found.append(Window(start_s=start_s, end_s=end_s, speech=tuple(spans)))
    return found


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
            from_s = left_s + MAX_WINDOW_S - SPLIT_REACH_S
            first, last = (round(time * SAMPLE_RATE) for time in (from_s, left_s + MAX_WINDOW_S))
            cut_s = from_s + quietest_s(samples[first:last])
            yield left_s, cut_s
            left_s = cut_s
        yield left_s, end_s


def even_windows(duration_s: float) -> list[Window]:
    """Consecutive windows of 30 s over all of a recording, for when voice activity is off."""
    num = int(np.ceil(duration_s / MAX_WINDOW_S))
    edges = [min(i * MAX_WINDOW_S, duration_s) for i in range(num + 1)]
    return [Window(start_s=start, end_s=end, speech=((start, end),)) for start, end in pairwise(edges)]


def audible_windows(windows: Sequence[Window], samples: np.ndarray, *, gain_db: float) -> list[Window]:
    """The windows that were above absolute silence somewhere before they were made louder.

    samples: int16 at 16 kHz, [time]. gain_db: by how much they were.
    """
    silent = (32768 * 10 ** ((SILENT_DB + max(gain_db, 0.0)) / 20)) ** 2
    whole = np.pad(samples, (0, -len(samples) % POSITION_SAMPLES)).reshape(-1, POSITION_SAMPLES)
    power = np.einsum("ij,ij->i", whole, whole, dtype=np.float64) / POSITION_SAMPLES
    per_s = SAMPLE_RATE / POSITION_SAMPLES

    def is_audible(window: Window) -> bool:
        first, end = math.floor(window.start_s * per_s), math.ceil(window.end_s * per_s)
        return bool((power[first:end] > silent).any())

    return [window for window in windows if is_audible(window)]


def find_cut(minute: np.ndarray) -> float:
    """Where a recording is cut near the middle of a minute of it, in seconds from the minute's start.

    A pure function of the samples, so that both parts find the same cut.

    Args:
        minute: int16 at 16 kHz, [time].
    """
    return quiet_middle_s(minute)
