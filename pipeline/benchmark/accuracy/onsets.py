"""Where the sound of each sentence begins: what was joined has silence and breath before the first word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.engine.audio import POSITION_S, POSITION_SAMPLES

LOUD_QUANTILE = 0.95  # of the power of 20 ms: the recording's loud parts
SOFT_DB = 25.0  # below them speech begins; what is softer is breath and room
LONGEST_S = 2.0  # of silence before a sentence that is looked through


def onsets(samples: np.ndarray, starts_s: Sequence[float]) -> Iterator[float]:
    """The first 20 ms from each start that are within 25 dB of the loud parts; itself where none are.

    samples: float32 [time] at 16 kHz. starts_s: seconds.
    """
    num = len(samples) // POSITION_SAMPLES
    power = np.square(samples[: num * POSITION_SAMPLES]).reshape(num, POSITION_SAMPLES).mean(1)
    is_loud = power >= np.quantile(power, LOUD_QUANTILE) / 10 ** (SOFT_DB / 10)
    for start_s in starts_s:
        first = int(start_s / POSITION_S)
        loud = np.flatnonzero(is_loud[first : first + round(LONGEST_S / POSITION_S)])
        yield start_s + float(loud[0]) * POSITION_S if len(loud) else start_s
