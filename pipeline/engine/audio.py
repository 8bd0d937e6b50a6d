"""What a window of audio is, and where audio is quiet."""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 16_000  # Hz; everything decoded has it
WINDOW_S = 30.0  # the longest window that a Whisper model takes
WINDOW_SAMPLES = 480_000
NUM_FRAMES = 3000  # of 10 ms, in a window
POSITION_S = 0.02  # one encoder position, and one step of the timestamp tokens
POSITION_SAMPLES = 320
SILENT_DB = -86.0  # of full scale: between one and two steps of 16 bits; what is never louder holds no speech
LOUDNESS_STEP = 160  # samples: loudness is looked at in steps of 10 ms
LOUDNESS_STEPS = 20  # a quiet place is 200 ms long
LOUD_QUANTILE = 0.95  # not the peak, which a click would set
LOUD_RANGE_DB = 35.0  # speech reaches about this far below its loud parts


def loudness(samples: np.ndarray) -> np.ndarray:
    """Mean square of every 200 ms of int16 samples [time], in steps of 10 ms: float64 [steps]."""
    num_steps = len(samples) // LOUDNESS_STEP
    if num_steps < LOUDNESS_STEPS:
        return np.zeros(0)
    steps = samples[: num_steps * LOUDNESS_STEP].reshape(num_steps, LOUDNESS_STEP)
    power = np.einsum("ij,ij->i", steps, steps, dtype=np.float64) / LOUDNESS_STEP
    sums = np.concatenate([[0.0], np.cumsum(power)])
    return (sums[LOUDNESS_STEPS:] - sums[:-LOUDNESS_STEPS]) / LOUDNESS_STEPS


def is_sounding(samples: np.ndarray) -> np.ndarray:
    """Which 10 ms of int16 samples [time] are not far below their loud parts: bool [steps]."""
    found = loudness(samples)
    if not len(found):
        return np.ones(len(samples) // LOUDNESS_STEP, bool)
    padded = np.pad(found, (LOUDNESS_STEPS // 2, LOUDNESS_STEPS), mode="edge")
    return padded >= np.quantile(found, LOUD_QUANTILE) / 10 ** (LOUD_RANGE_DB / 10)


def quietest_s(samples: np.ndarray) -> float:
    """The middle of the quietest 200 ms of int16 samples [time], in seconds; 0 where there are fewer."""
    found = loudness(samples)
    return _middle_s(int(np.argmin(found))) if len(found) else 0.0


def quiet_middle_s(samples: np.ndarray) -> float:
    """The same, but of places that are about as quiet (3 dB) the one nearest to the middle."""
    found = loudness(samples)
    if not len(found):
        return 0.0
    level = np.floor(10 * np.log10(found + 1.0) / 3.0)
    distance = np.abs(np.arange(len(level)) - len(level) / 2)
    return _middle_s(int(np.lexsort((distance, level))[0]))


def _middle_s(place: int) -> float:
    return (place + LOUDNESS_STEPS // 2) * LOUDNESS_STEP / SAMPLE_RATE
