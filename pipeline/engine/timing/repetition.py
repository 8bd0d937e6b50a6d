"""Whether a phrase that the text says over and over is said over and over in the sound.

A decoder that stands still repeats a phrase over other speech, music or noise; a hold announcement or a roll
call repeats it because it was said. So the stretches of sound under its rounds are laid over one another.
Measured with whisper-base: of phrases said 4 to 7 times at other speeds, loudness and in noise the median
likeness was 0.55 to 1.0 and the spread of lengths up to 0.17; of phrases that only the text repeats, the
likeness was at most 0.22 over ten recordings of speech where the spread was under 1.1, at most 0.43 over
music, tones and noise, and 0.58 over clicks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import mean, median, pstdev

import numpy as np

from pipeline.engine.decoding.loops import find_loop

FRAMES_PER_S = 100  # of the log-mel features
SHAPE_FRAMES = 24  # that a round is stretched to, so that its speed does not matter
QUIET = 0.35  # of log-mel below the loudest frame (14 dB): pauses at a round's ends are left out
MIN_LIKENESS = 0.5
MAX_SPREAD = 0.5  # standard deviation of the rounds' lengths over their mean
MIN_ROUND_S = 0.3


def is_said_again(tokens: Sequence[int], starts_s: Sequence[float], mel: np.ndarray) -> bool:
    """Whether the rounds of the first loop among text tokens sound alike.

    starts_s: when each token begins, and last the end of the text, seconds. mel: log-mel features of the
    window, [num_mels, frames].
    """
    loop = find_loop(tokens)
    if loop is None:
        return False
    firsts = range(loop.start, loop.stop - loop.period + 1, loop.period)
    rounds = [(starts_s[first], starts_s[first + loop.period]) for first in firsts]
    lengths_s = [end_s - start_s for start_s, end_s in rounds]
    if min(lengths_s) < MIN_ROUND_S or pstdev(lengths_s) > MAX_SPREAD * mean(lengths_s):
        return False
    shapes = [_shape(mel[:, round(a * FRAMES_PER_S) : round(b * FRAMES_PER_S)]) for a, b in rounds]
    return median(float((one * other).sum()) for one, other in pairwise(shapes)) >= MIN_LIKENESS


def _shape(sound: np.ndarray) -> np.ndarray:
    """How a stretch of sound differs from its mean spectrum, at one length and size: [num_mels, frames]."""
    loudness = sound.mean(0)
    (loud,) = np.nonzero(loudness > loudness.max() - QUIET)
    inside = sound[:, loud[0] : loud[-1] + 1]
    places = np.linspace(0, inside.shape[1] - 1, SHAPE_FRAMES)
    stretched = np.stack([np.interp(places, np.arange(inside.shape[1]), band) for band in inside])
    stretched -= stretched.mean(1, keepdims=True)
    return stretched / max(float(np.linalg.norm(stretched)), 1e-9)
