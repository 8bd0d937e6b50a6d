"""The level of every epoch: a pure function of what epochs at least two before it have committed.

An epoch is 64 shards in the order of their numbers. Its rung is written once; a kill, the number of actors
and the order in which shards finish can therefore not change it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipeline.adaptive import bounds, sampling
from pipeline.adaptive.bounds import Draw, draw_of
from pipeline.adaptive.files import epoch_name
from pipeline.adaptive.job_policy import JobPolicy
from pipeline.output.store import Store

LAG = 2  # epochs: while one is committed the next one runs
LOOK_GROWTH = 1.5  # a look is worth its share of the error level once the shadow has grown by half
log = logging.getLogger("earshard")


@dataclass(frozen=True, kw_only=True)
class Look:
    """One comparison of the excess on a rung, calibration included, with the budget.

    bound: what the excess is above, but for `bounds.LOOK_ERROR`.
    """

    rung: int
    num_words: int
    shadow_words: int
    excess: float | None
    bound: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class EpochLevel:
    """The rung of an epoch, and how far the looks have come.

    look: the one that was taken to decide it, if any. next_look_words: words of shadow on this rung at which
    there is another.
    """

    epoch: int
    rung: int
    num_looks: int = 0
    next_look_words: int = field(default_factory=lambda: sampling.MIN_WORDS)
    look: Look | None = None

    def as_json(self) -> bytes:
        """The content of its file."""
        return json.dumps(asdict(self), indent=2).encode()


def read_epoch(content: bytes) -> EpochLevel:
    """Read what `EpochLevel.as_json` gave."""
    stored = json.loads(content)
    look = stored.pop("look")
    return EpochLevel(**stored, look=Look(**look) if look else None)


def next_epoch(before: EpochLevel, shards: Iterable[Mapping[str, Any]], policy: JobPolicy) -> EpochLevel:
    """The level of the epoch after `before`.

    It goes one rung down where the lower bound of the excess passes the budget, and never up: the rungs above
    were not good enough, or dearer. `shards` are rows of METRICS of all shards in epochs that are at least
    `LAG` before the new one.
    """
    after = replace(before, epoch=before.epoch + 1, look=None)
    if before.rung == 0 or before.num_looks >= bounds.MAX_LOOKS:
        return after
    shadow = [
        draw_of(window)
        for shard in sorted(shards, key=lambda shard: shard["shard_id"])
        if shard["level"] == before.rung
        for window in shard["shadow_windows"] or ()
    ]
    shadow_words = sum(draw.num_words for draw in shadow)
    if shadow_words < before.next_look_words:
        return after
    look = take_look(before.rung, shadow, policy)
    if look.passed:
        later = int(shadow_words * LOOK_GROWTH)
        return replace(after, num_looks=before.num_looks + 1, next_look_words=later, look=look)
    return EpochLevel(epoch=after.epoch, rung=before.rung - 1, num_looks=before.num_looks + 1, look=look)


def take_look(rung: int, shadow: Sequence[Draw], policy: JobPolicy) -> Look:
    """Compare the excess on a rung, in the shadow and in the job's own calibration, with the budget."""
    draws = [*calibrated(policy, rung), *shadow]
    bound = bounds.lower_bound(draws, error_level=bounds.LOOK_ERROR)
    return Look(
        rung=rung,
        num_words=sum(draw.num_words for draw in draws),
        shadow_words=sum(draw.num_words for draw in shadow),
        excess=bounds.excess(draws),
        bound=bound,
        passed=bound <= policy.budget,
    )


def calibrated(policy: JobPolicy, rung: int) -> tuple[Draw, ...]:
    """What the job's own calibration saw on a rung; nothing where it had none."""
    return policy.calibrated[rung - 1] if 0 < rung <= len(policy.calibrated) else ()


class Epochs:
    """The driver's side: takes in what is committed and writes the levels that can be decided."""

    def __init__(self, store: Store, policy: JobPolicy) -> None:
        self._store, self._policy = store, policy
        self._shards: dict[int, Mapping[str, Any]] = {}
        self._num_leading = 0  # shards from 0 on without a gap
        self._levels: list[EpochLevel] = []

    def add(self, marker: Mapping[str, Any]) -> None:
        """Take in a committed shard (a row of METRICS)."""
        self._shards[marker["shard_id"]] = marker
        while self._num_leading in self._shards:
            self._num_leading += 1

    def publish(self, num_shards: int) -> None:
        """Write the levels of the epochs of the first `num_shards` shards, as far as they are decided."""
        while len(self._levels) <= self._policy.epoch_of(num_shards - 1):
            level = self._next()
            if level is None:
                return
            self._levels.append(level)

    def _next(self) -> EpochLevel | None:
        epoch = len(self._levels)
        content = self._store.read(epoch_name(epoch))
        if content is not None:
            return read_epoch(content)
        num_seen = max(0, epoch - LAG + 1) * self._policy.epoch_shards
        if self._num_leading < num_seen:
            return None
        level = EpochLevel(epoch=0, rung=self._policy.start)
        if epoch:
            seen = [self._shards[shard_id] for shard_id in range(num_seen)]
            level = next_epoch(self._levels[-1], seen, self._policy)
        self._store.publish(epoch_name(epoch), level.as_json())
        _log_look(level, self._policy)
        return level


def _log_look(level: EpochLevel, policy: JobPolicy) -> None:
    look = level.look
    if look is not None:
        outcome = "stays" if look.passed else f"goes down to {level.rung}"
        log.info(
            "epoch %d: sparsity level %d %s, excess at least %.2f%% (budget %.2f%%)",
            *(level.epoch, look.rung, outcome, 100 * look.bound, 100 * policy.budget),
        )
