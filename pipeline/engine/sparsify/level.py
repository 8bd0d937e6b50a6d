"""The settings of adaptive sparsity: how many positions a window keeps, read from the window alone.

A setting with a fixed sparsity keeps the same number in every window. A setting with a share keeps that many
positions for each position that carries sound, rounded up to one of a few sizes, so that windows of one size
run together: silence and padding are what a window can spare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.engine.options import DEFAULT_LAYER, DEFAULT_SELECTOR, MAX_SPARSITY, SELECTORS

SIZES = (600, 750, 1050, 1500)  # positions; a window that needs more than the last but one stays dense
MARGIN = 20  # positions (0.4 s) kept beyond the share of those that sound


@dataclass(frozen=True, kw_only=True)
class Level:
    """One setting of the policy.

    layer: the scoring layer, 1-based. selector: a name in `options.SELECTORS`.
    sparsity: the share of all positions dropped in every window; None where `share` decides.
    share: kept positions per position that carries sound; None where `sparsity` is given.
    sizes: what `share` is rounded up to, ascending, the last one being all positions.
    min_logprob: a sparse window whose text has a lower mean log-probability is decoded again dense; None:
        only where Whisper's own gates say so.

    Raises ValueError naming the field and what it may be.
    """

    layer: int = DEFAULT_LAYER
    selector: str = DEFAULT_SELECTOR
    sparsity: float | None = None
    share: float | None = None
    sizes: tuple[int, ...] = SIZES
    min_logprob: float | None = None

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.share is None):
            raise ValueError("a level has either a sparsity or a share")
        if self.layer < 1:
            raise ValueError(f"layer is {self.layer!r}; it may be 1 or more")
        if self.sparsity is not None and not 0.0 <= self.sparsity <= MAX_SPARSITY:
            raise ValueError(f"sparsity is {self.sparsity!r}; it may be 0 to {MAX_SPARSITY}")
        if self.share is not None and not 0.0 < self.share < math.inf:
            raise ValueError(f"share is {self.share!r}; it may be any number above 0")
        if not self.sizes or self.sizes[0] < 1 or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes is {self.sizes!r}; it may be ascending numbers of positions")
        if self.min_logprob is not None and not self.min_logprob <= 0.0:
            raise ValueError(f"min_logprob is {self.min_logprob!r}; it may be 0 or any number below")

    @property
    def is_dense(self) -> bool:
        return self.sparsity == 0.0

    @property
    def of_halves(self) -> Level:
        """The level of a window cut in two: with `share` dense, so that speech is not left out twice."""
        return self if self.share is None else Level(layer=self.layer, sparsity=0.0)

    def check(self, *, num_layers: int, num_positions: int) -> None:
        """Raises ValueError for what a model of so many encoder layers and positions cannot do."""
        if self.layer > num_layers:
            raise ValueError(f"a level's layer is {self.layer}; with this model it may be 1 to {num_layers}")
        if self.selector not in SELECTORS:
            raise ValueError(f"a level's selector is {self.selector!r}; it may be {', '.join(SELECTORS)}")
        if self.share is not None and self.sizes[-1] != num_positions:
            raise ValueError(
                f"a level's sizes end with {self.sizes[-1]}; with this model that is {num_positions}"
            )

    def size_for(self, num_sounding: int) -> int:
        """The smallest size that holds a `share` level's part of the sounding positions, else the largest."""
        assert self.share is not None
        needed = math.ceil(self.share * num_sounding) + MARGIN
        return next((size for size in self.sizes if size >= needed), self.sizes[-1])

    def as_dict(self) -> dict[str, Any]:
        """The setting as it is stored in policy files."""
        return asdict(self) | {"sizes": list(self.sizes)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Level:
        """Read what `as_dict` gave. Raises ValueError or TypeError for anything else."""
        return cls(**{**stored, "sizes": tuple(stored.get("sizes", SIZES))})
