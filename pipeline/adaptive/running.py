"""What a running job knows of its adaptive sparsity."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.adaptive.shadow import ShardLevel
from pipeline.engine.policy import Level

FOLDER = "policy"
EPOCH_SHARDS = 64

Draws = tuple[tuple[int, int], ...]  # word errors and dense words of each draw


@dataclass(frozen=True, kw_only=True)
class RunningPolicy:
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
