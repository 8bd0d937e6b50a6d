"""Speech that a window's text leaves out, and the window cut around it; text that stands where there is none.

Whisper skips: it ends a text early, or jumps from one sentence to a later one that begins alike. Its
cross-attention then stretches a word over what was skipped, and words that are said take less than a second.
What was skipped is decoded alone then, so that there is nothing to jump to.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pipeline.engine.audio import is_sounding, quiet_middle_s
from pipeline.longform.placed import PlacedResult, PlacedWindow, Span

WORD_S = 1.0  # what a word covers from its start on
MARGIN_S = 0.4  # and around that: speech is marked 0.2 s too long at its ends, and words may be as far off
MIN_MISSED_S = 1.0  # of speech in one place; over 27 minutes, what was left out was 1.2 s or more, else 0.8
MIN_HEARD_S = 0.3  # of speech under a text; it is marked 0.2 s too long at its ends
MAX_NO_SPEECH_PROB = 0.6  # openai/whisper transcribe.py: an empty text is believed above it
MIN_CUT_S = 2.0  # windows with less speech than this are not cut
MIN_PIECE_S = 0.3  # of speech that either side has at least
REACH_S = 1.5  # around where what is left out begins or ends: words may be as far off as that
RUN_UP_S = 1.0  # of the pause that a cut falls into, for the window on either side


def left_out(done: PlacedResult) -> Span | None:
    """The first stretch of a window with speech that no word of its text covers, seconds in the recording.

    Where its sound did not bear a text out, nobody speaks: without voice activity, pieces of noise would be
    decoded to the last.
    """
    window = done.window
    if done.is_aside:
        return None
    if not done.result.text:
        is_silence = done.result.no_speech_prob > MAX_NO_SPEECH_PROB or done.result.is_unheard
        return None if is_silence else (-np.inf, np.inf)
    words = [(window.start_s + start, window.start_s + end) for start, end in done.result.spoken]
    covered = [(start - MARGIN_S, min(end, start + WORD_S) + MARGIN_S) for start, end in words]
    return next((hole for hole in _holes(covered) if _missed_s(hole, window) > MIN_MISSED_S), None)


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


def pieces(window: PlacedWindow, hole: Span) -> list[PlacedWindow]:
    """A window cut where what its text leaves out begins and ends, so that this is decoded alone.

    It is cut at the longest pause nearby, else at a quiet place; in its middle half where all is left out.
    Nothing where it is too short for that.
    """
    if window.speech_s < MIN_CUT_S:
        return []
    first_s, last_s = window.speech[0][0] + MIN_PIECE_S, window.speech[-1][1] - MIN_PIECE_S
    edges = [edge for edge in hole if first_s < edge < last_s]
    if edges:
        near = [(max(first_s, edge - REACH_S), min(last_s, edge + REACH_S)) for edge in edges]
    else:
        quarter_s = (last_s - first_s) / 4
        near = [(first_s + quarter_s, last_s - quarter_s)]
    pauses = [_pause(window, *stretch) for stretch in near]
    if len(pauses) == 2 and pauses[1][0] - pauses[0][1] < MIN_MISSED_S:
        pauses = [max(pauses, key=lambda pause: pause[1] - pause[0])]
    starts = [window.start_s, *(max((start + end) / 2, end - RUN_UP_S) for start, end in pauses)]
    ends = [*(min((start + end) / 2, start + RUN_UP_S) for start, end in pauses), window.end_s]
    cut = [_piece(window, start, end) for start, end in zip(starts, ends, strict=True)]
    return [piece for piece in cut if piece.speech]


def _piece(window: PlacedWindow, start_s: float, end_s: float) -> PlacedWindow:
    inside = [(max(start, start_s), min(end, end_s)) for start, end in window.speech]
    return window.piece(start_s, end_s, [span for span in inside if span[0] < span[1]])


def _pause(window: PlacedWindow, start_s: float, end_s: float) -> Span:
    """The longest pause between two times of a window; else where it is quiet, without length."""
    pauses = [(before[1], after[0]) for before, after in pairwise(window.speech)]
    inside = [pause for pause in pauses if start_s <= sum(pause) / 2 <= end_s]
    if inside:
        return max(inside, key=lambda pause: pause[1] - pause[0])
    stretch = window.piece(start_s, end_s, speech=())
    quiet_s = stretch.start_s + quiet_middle_s(stretch.samples)
    return quiet_s, quiet_s
