"""How sure a sparse text must be.

What sparsification spoils shows in the model's own log-probabilities: a window whose sparse text is less sure
than nearly all dense texts of the same corpus is decoded again dense, which undoes its loss for the price of
one window. The floor comes from the corpus, since every model and every archive has a scale of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

UNSURE_SHARE = 0.05  # of the dense texts lie below the floor


def floor_of(logprobs: Iterable[float | None]) -> float | None:
    """The mean log-probability that sparse text must reach; None where dense said nothing.

    It is rounded, so that the last digits, which depend on a window's company, do not show in it. Of fewer
    than 21 texts it is that of the least sure.

    logprobs: of dense windows (`longform.first_pass_logprob`); those decoded again are left out.
    """
    known = [logprob for logprob in logprobs if logprob is not None]
    return round(float(np.quantile(known, UNSURE_SHARE, method="lower")), 3) if known else None


def is_unsure(row: Mapping[str, Any], floor: float | None) -> bool:
    """Whether the engine would decode a window again, for the text that it has at a level.

    row: its `logprob` (`longform.first_pass_logprob`), `kept_positions` and `total_positions`.
    """
    logprob, is_sparse = row["logprob"], row["kept_positions"] < row["total_positions"]
    return is_sparse and logprob is not None and floor is not None and logprob < floor
