"""How sparse a window is: one setting of sparsification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pipeline.engine.options import DEFAULT_LAYER, DEFAULT_SELECTOR, MAX_SPARSITY, SELECTORS


def num_kept(sparsity: float, num_positions: int) -> int:
    """k = round((1 - s) T), at least 1."""
    return max(1, round((1.0 - sparsity) * num_positions))


@dataclass(frozen=True, kw_only=True)
class Level:
    """One setting of sparsification.

    layer: the scoring layer, 1-based. selector: a name in `options.SELECTORS`. sparsity: the share of
    positions dropped after that layer.
    thin_ends: whether silence and padding before the first and after the last sound are thinned before the
    first layer (see `ends`).
    min_logprob: a sparse window whose text has a lower mean log-probability is decoded again dense; None:
    only where Whisper's own gates say so.

    Raises ValueError naming the field and what it may be.
    """

    layer: int = DEFAULT_LAYER
    selector: str = DEFAULT_SELECTOR
    sparsity: float = 0.0
    thin_ends: bool = False
    min_logprob: float | None = None

    def __post_init__(self) -> None:
        if self.layer < 1:
            raise ValueError(f"layer is {self.layer!r}; it may be 1 or more")
        if not 0.0 <= self.sparsity <= MAX_SPARSITY:
            raise ValueError(f"sparsity is {self.sparsity!r}; it may be 0 to {MAX_SPARSITY}")
        if self.min_logprob is not None and not self.min_logprob <= 0.0:
            raise ValueError(f"min_logprob is {self.min_logprob!r}; it may be 0 or any number below")

    @property
    def is_dense(self) -> bool:
        """Whether every position of every window is kept."""
        return self.sparsity == 0.0 and not self.thin_ends

    @property
    def of_pieces(self) -> Level:
        """The level of a piece of a window: of an adaptive job all positions but those of its ends."""
        return replace(self, sparsity=0.0) if self.thin_ends else self

    def size_of(self, num_left: int, num_positions: int) -> int:
        """How many of the positions that thinning left are kept.

        Where thinning alone has dropped the share that is asked for, all of them; else that share of them.
        num_positions: those of the encoder.
        """
        if num_left <= num_kept(self.sparsity, num_positions):
            return num_left
        return num_kept(self.sparsity, num_left)

    def check(self, *, num_layers: int) -> None:
        """Raises ValueError for what a model of so many encoder layers cannot do."""
        if self.layer > num_layers:
            raise ValueError(f"a level's layer is {self.layer}; with this model it may be 1 to {num_layers}")
        if self.selector not in SELECTORS:
            raise ValueError(f"a level's selector is {self.selector!r}; it may be {', '.join(SELECTORS)}")

    def as_dict(self) -> dict[str, Any]:
        """The setting as it is stored in policy files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Level:
        """Read what `as_dict` gave. Raises ValueError or TypeError for anything else."""
        unknown = sorted(stored.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"{unknown[0]} is not known in this release; measure anew with jobs.search")
        return cls(**stored)
