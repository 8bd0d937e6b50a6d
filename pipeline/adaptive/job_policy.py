"""The ladder that a job climbs, mildest level first, where it starts, and how its shadow is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.adaptive import sampling
from pipeline.adaptive.bounds import Draw
from pipeline.adaptive.shadow import ShardLevel
from pipeline.engine.sparsify.level import Level

EPOCH_SHARDS = 64
# The levels of every job that was given none, mildest first: the ends of windows thinned, then every second
# position dropped as well, late and early. Nothing that was tried beside them was better on real weights
# (docs/measurements/sparsity-rules.md).
LADDER = (
    Level(thin_ends=True),
    Level(layer=3, selector="stride", sparsity=0.5, thin_ends=True),
    Level(layer=2, selector="stride", sparsity=0.5, thin_ends=True),
)


def ladder_of(num_layers: int) -> tuple[Level, ...]:
    """The levels of `LADDER` that a model of so many encoder layers can do."""
    return tuple(level for level in LADDER if level.layer <= num_layers)


@dataclass(frozen=True, kw_only=True)
class JobPolicy:
    """The ladder of a job, where it starts, and how its shadow is drawn.

    start: a rung; 0 is dense, n is `ladder[n - 1]`. budget: excess errors per dense word. share: of windows
    in the shadow. salt: the hash of the plan. calibrated: what the job's own calibration saw on the rungs
    from 1 on; empty where others' evidence serves. epoch_shards: shards that have their level in common.
    """

    ladder: tuple[Level, ...]
    start: int
    budget: float
    salt: str
    share: float = field(default_factory=lambda: sampling.SHADOW_SHARE)
    calibrated: tuple[tuple[Draw, ...], ...] = ()
    epoch_shards: int = field(default_factory=lambda: EPOCH_SHARDS)

    def epoch_of(self, shard_id: int) -> int:
        """The epoch of a shard."""
        return shard_id // self.epoch_shards

    def shard_level(self, rung: int) -> ShardLevel:
        """How a shard on this rung is transcribed."""
        level = self.ladder[rung - 1] if rung else None
        return ShardLevel(rung=rung, level=level, share=self.share, salt=self.salt)
