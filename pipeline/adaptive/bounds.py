"""How much worse sparse text is than dense text, estimated without references, and how sure that is.

Texts that differ need not be worse: dense Whisper changes words of its own when a window begins 0.13 s
earlier. With A the dense text of a window, B the dense text of the same window begun a little earlier, S the
sparse text and d word edits, the excess of a window is c * ((d(A,S) + d(B,S)) / 2 - d(A,B)): how much more S
differs from dense than dense differs from itself, as far as dense is sure (c): where dense text is wrong
already, other text is no worse. Summed over windows and divided by the words of A it estimates the change of
the word error rate. Errors of one window come together, so a window is one draw of the bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
MAX_GROUPS = 256  # more windows than that are added up to so many groups before they are resampled
# c is exp(CERTAINTY * the mean log-probability of a token of A), about the chance that three words are right.
# Over 29 settings of real weights 3 to 5 took most of the bias and kept the bound on the careful side.
CERTAINTY = 4.0
MIN_DRAWS = 20  # a bootstrap of fewer windows is narrower than the truth


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One window decoded three ways: word edits between the texts, normalised as in scoring.

    num_words: of A. sparse_errors: d(A,S). shifted_errors: d(B,S). dense_errors: d(A,B). certainty: c of A.
    """

    num_words: int
    sparse_errors: int
    shifted_errors: int
    dense_errors: int
    certainty: float = 1.0

    @property
    def excess(self) -> float:
        """How many more words of S differ from dense than dense differs from itself; may be negative."""
        return self.certainty * ((self.sparse_errors + self.shifted_errors) / 2 - self.dense_errors)


def certainty(logprob: float | None) -> float:
    """How sure dense is, from the mean log-probability of its tokens; 1 where that is unknown."""
    return 1.0 if logprob is None else math.exp(CERTAINTY * logprob)


def draw_of(stored: Mapping[str, Any]) -> Draw:
    """A draw from a row that has its counts under their names, among others; the first had no certainty."""
    found = {name: stored.get(name) for name in Draw.__dataclass_fields__}
    return Draw(**{name: value for name, value in found.items() if value is not None})


def excess(draws: Sequence[Draw]) -> float | None:
    """The excess per word of A; None without words."""
    words = sum(draw.num_words for draw in draws)
    return sum(draw.excess for draw in draws) / words if words else None


def upper_bound(draws: Sequence[Draw], *, error_level: float) -> float:
    """What the true excess is below, but for a chance of `error_level`; infinite with too few windows.

    The same for the same draws.
    """
    return _bound(draws, 1 - error_level, "higher", math.inf)


def lower_bound(draws: Sequence[Draw], *, error_level: float) -> float:
    """What the true excess is above, as `upper_bound` for below; minus infinity with too few windows."""
    return _bound(draws, error_level, "lower", -math.inf)


def _bound(
    draws: Sequence[Draw], quantile: float, method: Literal["higher", "lower"], unknown: float
) -> float:
    if len(draws) < MIN_DRAWS or not any(draw.num_words for draw in draws):
        return unknown
    group = np.arange(len(draws)) % min(len(draws), MAX_GROUPS)
    errors = np.bincount(group, [draw.excess for draw in draws])
    words = np.bincount(group, [draw.num_words for draw in draws])
    rng = np.random.default_rng(0)
    times = rng.multinomial(len(words), np.full(len(words), 1 / len(words)), size=NUM_RESAMPLES)
    drawn = np.maximum(times @ words, 1.0)  # a resample without a word says nothing
    return float(np.quantile(times @ errors / drawn, quantile, method=method))
