"""Speech that a window's text leaves out, and the window cut in two; text that stands where there is none.

Whisper skips: it ends a text early, or jumps from one sentence to a later one that begins alike. Its
cross-attention then stretches a word over what was skipped, and words that are said take less than a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.engine.audio import is_sounding, quiet_middle_s
from pipeline.longform.placed import PlacedResult, PlacedWindow, Span

WORD_S = 1.0  # what a word covers from its start on
MARGIN_S = 0.4  # and around that: speech is marked 0.2 s too long at its ends, and words may be as far off
MIN_MISSED_S = 1.0  # of speech in one place; over 27 minutes, what was left out was 1.2 s or more, else 0.8
MIN_HEARD_S = 0.3  # of speech under a text; it is marked 0.2 s too long at its ends
MAX_NO_SPEECH_PROB = 0.6  # openai/whisper transcribe.py: an empty text is believed above it
MIN_HALVED_S = 2.0  # windows with less speech than this are not cut
MIN_HALF = 0.2  # of the speech that either side has at least
RUN_UP_S = 1.0  # of the pause that a cut falls into, for the window on either side


def leaves_out_speech(done: PlacedResult) -> bool:
    """Whether there is speech in one place of a window that no word of its text covers.

    Where its sound did not bear a text out, nobody speaks: without voice activity, halves of noise would be
    decoded to the last.
    """
    if done.is_aside:
        return False
    if not done.result.text:
        return done.result.no_speech_prob <= MAX_NO_SPEECH_PROB and not done.result.is_unheard
    words = [(done.window.start_s + start, done.window.start_s + end) for start, end in done.result.spoken]
    covered = [(start - MARGIN_S, min(end, start + WORD_S) + MARGIN_S) for start, end in words]
    return any(_missed_s(hole, done.window) > MIN_MISSED_S for hole in _holes(covered))


def doubt_of(window: PlacedWindow, start_s: float, end_s: float) -> str | None:
    """Why text at these times of a window may not have been said: `no_speech`, nobody was heard there.

    Whisper thanks for watching where a recording ends in music. None where nothing speaks against it, as
    without voice activity.
    """
    start_s, end_s = window.start_s + start_s, window.start_s + end_s
    heard_s = sum(max(0.0, min(end_s, end) - max(start_s, start)) for start, end in window.speech)
    return "no_speech" if heard_s < min(MIN_HEARD_S, (end_s - start_s) / 2) else None


def _holes(covered: Sequence[Span]) -> list[Span]:
    """What lies between, before and after some stretches, which begin in the order of time."""
    starts = [start for start, _ in covered]
    ends = np.maximum.accumulate([end for _, end in covered]).tolist()
    edges = zip([-np.inf, *ends], [*starts, np.inf], strict=True)
    return [(end, start) for end, start in edges if start > end]


def _missed_s(hole: Span, window: PlacedWindow) -> float:
    """Seconds of speech in a hole, but those that are silent."""
    spans = [(max(hole[0], start), min(hole[1], end)) for start, end in window.speech]
    spans = [(start, end) for start, end in spans if end > start]
    if sum(end - start for start, end in spans) <= MIN_MISSED_S:
        return 0.0
    sounding = is_sounding(window.samples)
    places = [[round((time - window.start_s) * 100) for time in span] for span in spans]
    return float(sum(sounding[first:last].sum() for first, last in places)) / 100


def halves(window: PlacedWindow) -> tuple[PlacedWindow, PlacedWindow] | None:
    """A window cut at its longest pause with speech on both sides, or a quiet place near its middle.

    None where it is too short for that.
    """
    if window.speech_s < MIN_HALVED_S:
        return None
    speech = window.speech
    places = [n for n in range(1, len(speech)) if MIN_HALF <= _share(speech, n) <= 1 - MIN_HALF]
    if places:
        n = max(places, key=lambda n: speech[n][0] - speech[n - 1][1])
        left, right = speech[:n], speech[n:]
        middle_s = (left[-1][1] + right[0][0]) / 2
        left_end_s = min(middle_s, left[-1][1] + RUN_UP_S)
        right_start_s = max(middle_s, right[0][0] - RUN_UP_S)
    else:
        cut_s = left_end_s = right_start_s = _quiet_place_s(window)
        left = tuple((start, min(end, cut_s)) for start, end in speech if start < cut_s)
        right = tuple((max(start, cut_s), end) for start, end in speech if end > cut_s)
    return window.piece(window.start_s, left_end_s, left), window.piece(right_start_s, window.end_s, right)


def _share(speech: Sequence[Span], n: int) -> float:
    """The share of the speech that is in its first n spans."""
    lengths = [end - start for start, end in speech]
    return sum(lengths[:n]) / sum(lengths)


def _quiet_place_s(window: PlacedWindow) -> float:
    """Where it is quiet in the middle of a window's speech."""
    start_s, end_s = window.speech[0][0], window.speech[-1][1]
    edge_s = MIN_HALF * (end_s - start_s)
    middle = window.piece(start_s + edge_s, end_s - edge_s, speech=())
    return middle.start_s + quiet_middle_s(middle.samples)
