"""Which positions of a window carry sound, read from its samples alone.

A position sounds if it is loud beside the window's own loudest part, or close to one that is. The rule leans
to keeping: steady noise as loud as the pauses of a noisy recording counts as silence only where it is far
below the speech.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.engine.audio import POSITION_SAMPLES, SAMPLE_RATE, SILENT_DB

LOUD_QUANTILE = 0.95  # not the peak, which a click would set
QUIET_QUANTILE = 0.10
RANGE_DB = 35.0  # speech reaches about this far below its loud parts
MIN_RANGE_DB = 20.0  # what is less than this below the loud parts always sounds
ABOVE_QUIET_DB = 6.0
SHORTEST_SAMPLES = 1600  # 0.1 s: no word is shorter
REACH = 5  # positions (0.1 s): silences up to twice this inside speech sound, and so do its edges


def is_audible(samples: np.ndarray) -> bool:
    """Whether a window can hold a word at all: it is long enough, and above absolute silence somewhere."""
    if len(samples) < SHORTEST_SAMPLES:
        return False
    seconds = (samples[first : first + SAMPLE_RATE] for first in range(0, len(samples), SAMPLE_RATE))
    return any(bool((_levels(second) > SILENT_DB).any()) for second in seconds)  # mostly the first is enough


def sounding_samples(samples: np.ndarray) -> Tensor:
    """True where a position carries sound: bool [ceil(samples / 320)].

    What is absolutely silent does not sound, however quiet the rest. samples: float32 or int16, mono, 16 kHz;
    at least one.
    """
    return _sounding(_levels(samples), lowest=SILENT_DB)


def _levels(samples: np.ndarray) -> Tensor:
    """Power of each position in decibels of full scale: [ceil(samples / 320)]."""
    scale = 1.0 if samples.dtype == np.float32 else 1 / 32768
    wave = torch.from_numpy(samples.astype(np.float32)) * scale
    whole = F.pad(wave, (0, -len(wave) % POSITION_SAMPLES))
    return _power_db(whole.view(-1, POSITION_SAMPLES))


def _power_db(blocks: Tensor) -> Tensor:
    """Mean power of blocks of samples [blocks, samples] in decibels, digital zero being -120."""
    return 10.0 * blocks.square().mean(1).clamp(min=1e-12).log10()


def _sounding(level: Tensor, lowest: float = -math.inf) -> Tensor:
    """Positions that are loud by their level in decibels, or close to one that is: bool [positions].

    lowest: what is no louder does not sound, whatever the rest.
    """
    loud, quiet = (level.quantile(share) for share in (LOUD_QUANTILE, QUIET_QUANTILE))
    floor = torch.maximum(loud - RANGE_DB, torch.minimum(quiet + ABOVE_QUIET_DB, loud - MIN_RANGE_DB))
    is_loud = ((level >= floor) & (level > lowest)).float()[None, None]
    return F.max_pool1d(is_loud, 2 * REACH + 1, stride=1, padding=REACH)[0, 0] > 0
