"""The ends of a window: silence and padding before its first sound and after its last, which it can spare.

A clip of 5 s fills a sixth of the 1500 positions. All of its padding cannot go: a decoder that is left
without any runs on after the last word. One position in ten is enough for it to know where it is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.sparsify.sound import sounding_samples

MARGIN = 25  # positions (0.5 s) kept whole before the first sound and after the last
STEP = 10  # of the rest of the ends one position in so many is kept
# What is left is filled up to one of these, so that windows of one size run together.
SIZES = (200, 300, 400, 500, 600, 750, 900, 1200)


def thinned_positions(samples: np.ndarray, num_positions: int) -> Tensor:
    """The positions of a window that are left when its ends are thinned: ascending int64.

    It is read from the window alone. samples: as for `sounding_samples`. num_positions: those of the encoder.
    A window that would need more than the largest of `SIZES`, or holds no sound, keeps all of them.
    """
    sounds = sounding_samples(samples).nonzero()[:, 0]
    if not len(sounds):
        return torch.arange(num_positions)
    first = max(0, int(sounds[0]) - MARGIN)
    last = min(num_positions, int(sounds[-1]) + 1 + MARGIN)
    inside = torch.arange(first, last)
    ends = torch.cat([torch.arange(first), torch.arange(last, num_positions)])
    needed = len(inside) + -(-len(ends) // STEP)
    size = next((size for size in SIZES if needed <= size < num_positions), num_positions)
    num_ends = size - len(inside)
    kept = ends[torch.arange(num_ends) * len(ends) // max(1, num_ends)]
    return torch.cat([inside, kept]).sort().values
