"""The actor's side of the epochs: a shard waits until its level is decided."""

from __future__ import annotations

import time

from pipeline.adaptive.epochs import LAG, read_epoch
from pipeline.adaptive.files import epoch_name
from pipeline.adaptive.job_policy import JobPolicy
from pipeline.adaptive.shadow import ShardLevel
from pipeline.output.store import Store

STALLED = "_tmp/stalled"
POLL_S = 0.5
# Longer than a straggler takes to come in; past it a shard that an epoch lacks has been lost, and only the
# next round will bring it.
WAIT_S = 120.0


class Stalled(RuntimeError):
    """The level of a shard is not decided in this round; the shard is left to the next one."""


def level_of(shard_id: int, policy: JobPolicy, store: Store, round_id: str) -> ShardLevel:
    """The level of a shard, waited for. Raises `Stalled`."""
    if policy.start == 0:
        return policy.shard_level(0)
    name, deadline = epoch_name(policy.epoch_of(shard_id)), time.monotonic() + WAIT_S
    while (content := store.read(name)) is None:
        if time.monotonic() > deadline:
            store.replace(f"{STALLED}/{round_id}", b"")
        refuse_if_stalled(shard_id, policy, store, round_id)
        time.sleep(POLL_S)
    return policy.shard_level(read_epoch(content).rung)


def refuse_if_stalled(shard_id: int, policy: JobPolicy, store: Store, round_id: str) -> None:
    """Raise `Stalled` where another shard of this round has waited in vain and this one would."""
    epoch = policy.epoch_of(shard_id)
    if policy.start == 0 or epoch < LAG or store.read(f"{STALLED}/{round_id}") is None:
        return
    if store.read(epoch_name(epoch)) is None:
        raise Stalled(f"shard {shard_id}: waits for a lost shard to decide its level; runs in the next round")


def forget_stall(store: Store, round_id: str) -> None:
    """A round is over."""
    store.delete(f"{STALLED}/{round_id}")
