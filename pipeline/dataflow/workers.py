"""How many actors hold the model, on which device, with how many CPUs each."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import OptionError, RunOptions
from pipeline.dataflow.cluster import MIN_CPUS, ClusterError, on_cluster
from pipeline.dataflow.machine import allowed_cpus

log = logging.getLogger("earshard")
READ_CPUS = 1  # what Ray counts for a read; the model's threads take all cores, and reading yields to them
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
    return on_cluster() or _sees_gpus()


def _sees_gpus() -> bool:
    return bool(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def local_workers(run: RunOptions) -> Workers:
    """The one worker of a job in this process: on the first GPU, or with a thread for every CPU.

    Raises `OptionError` for what needs a Ray.
    """
    actors = run.max_actors or 1
    if actors > 1:
        raise OptionError(f"--actors {actors}: must be 1 with --local, which is one process")
    gpus = 1.0 if has_gpus(run) else 0.0
    if gpus and not _sees_gpus():
        raise OptionError(
            f"--gpus-per-actor {run.gpus_per_actor:g}: this machine has no NVIDIA GPU; must be 0"
        )
    cpus = allowed_cpus()
    if not gpus:
        log.info("the model uses %d threads (%s)", cpus.num, cpus.reason)
    return Workers(
        min_actors=1,
        max_actors=1,
        gpus_per_actor=gpus,
        actor_cpus=ACTOR_CPUS,
        threads_per_actor=None if gpus else cpus.num,
    )


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
    if cpus < MIN_CPUS:
        raise ClusterError(
            f"the cluster has {cpus} CPU; a job on CPUs needs {MIN_CPUS}: one reads beside the model"
        )
    most = int((cpus - READ_CPUS) / ACTOR_CPUS)
    if actors > most:
        raise OptionError(f"--actors {actors}: must be at most {most} on {cpus} CPUs")
    threads = max(1, max(nodes) // actors_per_node)
    reason = f"a node has {max(nodes)} CPUs" if on_cluster() else allowed_cpus().reason
    log.info("%d actor%s with %d threads each (%s)", actors, "s" * (actors > 1), threads, reason)
    return Workers(
        min_actors=run.min_actors or 1,
        max_actors=actors,
        gpus_per_actor=0.0,
        # Without room for a commit beside a read, shards are committed only once all of them are read.
        # Rounded down to what Ray counts in, which would round it up.
        actor_cpus=min(ACTOR_CPUS, math.floor((cpus - READ_CPUS - COMMIT_CPUS) / actors * 1e4) / 1e4),
        threads_per_actor=threads,
    )
