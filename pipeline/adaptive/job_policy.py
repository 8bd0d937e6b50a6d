"""The ladder that a job climbs, mildest level first, where it starts, and how its shadow is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.adaptive.shadow import ShardLevel
from pipeline.engine.sparsify.level import Level

EPOCH_SHARDS = 64
Draws = tuple[tuple[int, int], ...]  # word errors and dense words of each draw
# Kept positions per position that carries sound; what is above 1 is silence, which a decoder needs some of to
# know where it is. Which of them is used, calibration says (docs/sparsity.md).
SHARES = (1.4, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7)
# Finer than the engine's own sizes: rounded up to those, a spread-out window would keep a tenth more. Finer
# still would leave too few windows of one size to fill a GPU's batch. A window that needs more than two
# thirds of its positions stays dense: two fifths of the loss of a share of 0.85 came from these, and a
# seventh of its saving.
SIZES = (400, 500, 600, 700, 800, 900, 1000, 1500)


def default_ladder(layer: int, selector: str) -> tuple[Level, ...]:
    """The levels of `SHARES` at a scoring layer (1-based) with a selector of `engine.sparsify`."""
    return tuple(Level(layer=layer, selector=selector, share=share, sizes=SIZES) for share in SHARES)


@dataclass(frozen=True, kw_only=True)
class JobPolicy:
    """The ladder of a job, where it starts, and how its shadow is drawn.

    start: a rung; 0 is dense, n is `ladder[n - 1]`. budget: word errors per dense word. share: of windows in
    the shadow. salt: the hash of the plan. calibrated: what the job's own calibration saw on the rungs from 1
    on; empty with a policy file. epoch_shards: shards that have their level in common.
    """

    ladder: tuple[Level, ...]
    start: int
    budget: float
    share: float
    salt: str
    calibrated: tuple[Draws, ...] = ()
    epoch_shards: int = field(default_factory=lambda: EPOCH_SHARDS)

    def epoch_of(self, shard_id: int) -> int:
        """The epoch of a shard."""
        return shard_id // self.epoch_shards

    def shard_level(self, rung: int) -> ShardLevel:
        """How a shard on this rung is transcribed."""
        level = self.ladder[rung - 1] if rung else None
        return ShardLevel(rung=rung, level=level, share=self.share, salt=self.salt)
