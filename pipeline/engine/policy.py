"""The settings of adaptive sparsity: how many positions a window keeps, read from the window alone.

A setting with a fixed sparsity keeps the same number in every window. A setting with a share keeps that many
positions for each position that carries sound, rounded up to one of a few sizes, so that windows of one size
run together: silence and padding are what a window can spare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SIZES = (600, 750, 1050, 1500)  # positions; a window that needs more than the last but one stays dense


@dataclass(frozen=True, kw_only=True)
class Level:
    """One setting of the policy.

    layer: the scoring layer, 1-based. selector: a name in `sparsify.SELECTORS`.
    sparsity: the share of all positions dropped in every window; None where `share` decides.
    share: kept positions per position that carries sound; None where `sparsity` is given.
    sizes: what `share` is rounded up to, ascending, the last one being all positions.
    """

    layer: int = 2
    selector: str = "attention"
    sparsity: float | None = None
    share: float | None = None
    sizes: tuple[int, ...] = SIZES

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.share is None):
            raise ValueError("a level has either a sparsity or a share")

    def as_dict(self) -> dict[str, Any]:
        """The setting as it is stored in policy files."""
        return asdict(self) | {"sizes": list(self.sizes)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Level:
        """Read what `as_dict` gave. Raises ValueError or TypeError for anything else."""
        return cls(**{**stored, "sizes": tuple(stored["sizes"])})
