"""Confidence intervals of error rates: the bootstrap over recordings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.metrics import wer

NUM_RESAMPLES = 1000
INTERVAL = (0.025, 0.975)


def wer_interval(counts: Sequence[wer.Counts]) -> tuple[float, float] | None:
    """The central 95 % of the WER under resampling of whole recordings; None without reference words.

    Words of one recording go wrong together, so they are drawn together.
    """
    return ratio_interval(
        [count.num_errors for count in counts], [count.num_reference_words for count in counts]
    )


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float] | None:
    """The central 95 % of sum(numerators) / sum(denominators) under resampling of the clusters.

    Each place is a cluster that is drawn whole. The seed is fixed. None where the denominators sum to 0.
    """
    above, below = np.array(numerators, float), np.array(denominators, float)
    if not below.sum():
        return None
    draw, ratios = np.random.default_rng(0), []
    for _ in range(NUM_RESAMPLES):
        sample = draw.integers(0, len(above), len(above))
        drawn = float(below[sample].sum())
        if drawn:
            ratios.append(float(above[sample].sum()) / drawn)
    ratios.sort()
    low, high = (ratios[min(len(ratios) - 1, int(share * len(ratios)))] for share in INTERVAL)
    return low, high
