"""How much a sample says of the loss: a one-sided upper bound of word errors per dense word.

Errors of one window come together, so a window is one draw (a shard, where only its sums are known). Two
bounds are made and the larger one holds: a bootstrap over the draws, and the exact bound of a Poisson count
of bursts, which at no error at all is the rule of three and does not believe a bootstrap of few errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

# The chance that a statement about a job is wrong is at most 5 % for all of them together. It is shared out:
# calibration tests its levels in order and stops at the first that fails, so that one share does for all of
# them; each look at the shadow has its own; the last is for the bound in the report.
ERROR_LEVEL = 0.05
CALIBRATION_ERROR = 0.02
LOOKS_ERROR = 0.02
REPORT_ERROR = 0.01
MAX_LOOKS = 32
LOOK_ERROR = LOOKS_ERROR / MAX_LOOKS

NUM_RESAMPLES = 10_000  # six of them lie beyond `LOOK_ERROR`
MAX_DRAWS = 256  # more draws than that are added up to so many before they are resampled
# Words lost at once, at least, until the sample says more. One would be the rule of three word by word; a
# sample without errors cannot tell, and words that differ seldom come alone.
MIN_BURST = 2.0


def upper_bound(errors: Sequence[int], words: Sequence[int], *, error_level: float) -> float:
    """The bound of sum(errors) / sum(words); infinite without words. The same for the same counts.

    Args:
        errors: word errors of each draw.
        words: dense words of each draw.
        error_level: the chance that the true loss is larger.
    """
    num_words = sum(words)
    if not num_words:
        return math.inf
    by_draw, words_by_draw = np.asarray(errors, np.float64), np.asarray(words, np.float64)
    bursts = burst_bound(by_draw, error_level) / num_words
    return max(bursts, _bootstrap_bound(by_draw, words_by_draw, error_level))


def burst_bound(errors: np.ndarray, error_level: float) -> float:
    """The bound of the expected number of errors, if they come in bursts of the size seen, at least two."""
    total = float(errors.sum())
    burst = max(MIN_BURST, float((errors**2).sum()) / total) if total else MIN_BURST
    return burst * poisson_bound(total / burst, error_level)


def poisson_bound(count: float, error_level: float) -> float:
    """The mean of a Poisson variable above which `count` or less has a chance of at most `error_level`.

    The quantile of a gamma distribution of shape count + 1, exact at 0, else by Wilson and Hilferty (1931).
    """
    if count == 0:
        return -math.log(error_level)
    shape = count + 1
    z = NormalDist().inv_cdf(1 - error_level)
    return shape * (1 - 1 / (9 * shape) + z / (3 * math.sqrt(shape))) ** 3


def _bootstrap_bound(errors: np.ndarray, words: np.ndarray, error_level: float) -> float:
    if not errors.any():
        return 0.0
    group = np.arange(len(words)) % min(len(words), MAX_DRAWS)
    errors, words = np.bincount(group, errors), np.bincount(group, words)
    rng = np.random.default_rng(0)
    times = rng.multinomial(len(words), np.full(len(words), 1 / len(words)), size=NUM_RESAMPLES)
    drawn = np.maximum(times @ words, 1.0)  # a resample without a word says nothing
    return float(np.quantile(times @ errors / drawn, 1 - error_level, method="higher"))
