"""How many actors hold the model, on which device, with how many CPUs each."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import OptionError, RunOptions
from pipeline.dataflow.cluster import ClusterError, on_cluster

log = logging.getLogger("earshard")
# A read has a core of its own: threads that share one with it wait for each other at every operation. On 2
# cores one thread decoded five times as fast as two while the other core was busy.
READ_CPUS = 1
COMMIT_CPUS = 0.25  # differs from the others': stages of equal resources are fused and run serially
ACTOR_CPUS = 0.5  # at most, an actor's host work; its share of a CPU device is set by its threads
# While one shard is short of windows, or has texts to write, the other fills the device. More would only make
# a crash cost more.
SHARDS_IN_WORK = 2


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The pool of actors that hold the model."""

    min_actors: int
    max_actors: int
    gpus_per_actor: float
    actor_cpus: float
    threads_per_actor: int | None  # None: the device is a GPU

    @property
    def shards_in_work(self) -> int:
        """Shards that an actor works on at once, whose windows then share its batches.

        On a CPU it is one: larger batches save nothing there, and windows in the same company again give the
        same bytes again, to the last digit of a log-probability.
        """
        return 1 if self.gpus_per_actor == 0 else SHARDS_IN_WORK


def has_gpus(run: RunOptions) -> bool:
    """True where the model runs on GPUs. Asked before Ray starts, so that `auto` is resolved once.

    A cluster has them unless `--gpus-per-actor 0` says otherwise: an autoscaler may yet bring them.
    """
    if run.gpus_per_actor is not None:
        return run.gpus_per_actor > 0
    return on_cluster() or bool(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def choose_workers(run: RunOptions, num_units: int) -> Workers:
    """Resolve `--actors` and `--gpus-per-actor` against the connected Ray.

    On a cluster the pool may grow to an actor for each of the `num_units`, as far as GPUs are there or its
    autoscaler brings them.

    Raises `OptionError` and `ClusterError`.
    """
    import ray

    resources = ray.cluster_resources()
    gpus = (run.gpus_per_actor if run.gpus_per_actor is not None else 1.0) if has_gpus(run) else 0.0
    if gpus == 0:
        return _cpu_workers(run)
    fitting = int(resources.get("GPU", 0) / gpus)
    if fitting == 0 and not on_cluster():
        raise ClusterError(f"--gpus-per-actor {gpus:g}: Ray sees {resources.get('GPU', 0):g} GPUs here")
    if fitting == 0:
        log.warning("the cluster has no free GPU yet; waiting for its autoscaler to bring one")
    most = num_units if on_cluster() else fitting
    low = run.min_actors or 1
    return Workers(
        min_actors=low,
        max_actors=run.max_actors or max(low, most),
        gpus_per_actor=gpus,
        actor_cpus=ACTOR_CPUS,
        threads_per_actor=None,
    )


def _cpu_workers(run: RunOptions) -> Workers:
    import ray

    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    cpus, actors = sum(nodes), run.max_actors or 1
    actors_per_node = -(-actors // len(nodes))
    most = int((cpus - READ_CPUS) / ACTOR_CPUS)
    if actors > most:
        raise OptionError(f"--actors {actors}: must be at most {most} on {cpus} CPUs")
    return Workers(
        min_actors=run.min_actors or 1,
        max_actors=actors,
        gpus_per_actor=0.0,
        # Without room for a commit beside a read, shards are committed only once all of them are read.
        # Rounded down to what Ray counts in, which would round it up.
        actor_cpus=min(ACTOR_CPUS, math.floor((cpus - READ_CPUS - COMMIT_CPUS) / actors * 1e4) / 1e4),
        threads_per_actor=max(1, (max(nodes) - READ_CPUS) // actors_per_node),
    )
