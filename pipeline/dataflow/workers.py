"""How many actors hold the model, on which device, with how many CPUs each."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import OptionError, RunOptions
from pipeline.dataflow.cluster import MIN_CPUS, ClusterError, on_cluster
from pipeline.dataflow.machine import allowed_cpus
from pipeline.wording import counted

log = logging.getLogger("earshard")
READ_CPUS = 1  # what Ray counts for a read; the model's threads take all cores, and reading yields to them
COMMIT_CPUS = 0.25  # differs from the others': stages of equal resources are fused and run serially
ACTOR_CPUS = 0.5  # at most, an actor's host work; its share of a CPU device is set by its threads
READ_RTFX = 900.0  # of a core: 16 kHz FLAC takes 4.0 CPU-s an hour (docs/performance.md, "The data plane")
GPU_RTFX = 4000.0  # large-v3-turbo, dense, at half of an H100's roofline (docs/cluster.md); unmeasured
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
        log.info("the model uses %s (%s)", counted(cpus.num, "thread"), cpus.reason)
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
    autoscaler brings them; on this machine every GPU has its actor from the start.
    Says in one line where too few CPUs read for the GPUs that are there.

    Raises `OptionError` and `ClusterError`.
    """
    gpus = (run.gpus_per_actor if run.gpus_per_actor is not None else 1.0) if has_gpus(run) else 0.0
    return _gpu_workers(run, gpus, num_units) if gpus else _cpu_workers(run)


def _gpu_workers(run: RunOptions, gpus: float, num_units: int) -> Workers:
    """One actor for each GPU, or for each share of `gpus`."""
    nodes = _alive_nodes()
    fitting = sum(_num_fitting(node, gpus) for node in nodes)
    if not on_cluster():
        _require_gpus(run, nodes, gpus, fitting)
    low = run.min_actors or (1 if on_cluster() else fitting)
    most = run.max_actors or max(low, num_units if on_cluster() else fitting)
    if fitting == 0:
        log.warning("the cluster has no free GPU yet; waiting for its autoscaler to bring one")
        actor_cpus = ACTOR_CPUS
    else:
        actor_cpus = _gpu_actor_cpus(nodes, gpus, fitting)
        present = min(fitting, most)
        _warn_of_few_cpus(_num_cpus(nodes), present, actor_cpus, num_gpus=present * gpus)
    return Workers(
        min_actors=low,
        max_actors=most,
        gpus_per_actor=gpus,
        actor_cpus=actor_cpus,
        threads_per_actor=None,
    )


def _alive_nodes() -> list[dict[str, float]]:
    """What each node has, by the name of the resource."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _num_cpus(nodes: Sequence[dict[str, float]]) -> int:
    return sum(int(node.get("CPU", 0)) for node in nodes)


def _num_fitting(node: dict[str, float], gpus: float) -> int:
    """The actors of `gpus` each that a node has room for: no actor takes its GPUs from two nodes."""
    return int(node.get("GPU", 0) / gpus + 1e-9)


def _require_gpus(run: RunOptions, nodes: Sequence[dict[str, float]], gpus: float, fitting: int) -> None:
    """Raise where no autoscaler could bring what is missing."""
    found = sum(node.get("GPU", 0) for node in nodes)
    if fitting == 0:
        raise ClusterError(f"--gpus-per-actor {gpus:g}: Ray sees {found:g} GPUs here")
    if (run.max_actors or 0) > fitting:
        raise OptionError(f"--actors {run.max_actors}: must be at most {fitting} on {found:g} GPUs")


def _gpu_actor_cpus(nodes: Sequence[dict[str, float]], gpus: float, fitting: int) -> float:
    """An actor's CPUs: as many on every node as fit there, and together so few that shards can be read."""
    shares = [node.get("CPU", 0) / number for node in nodes if (number := _num_fitting(node, gpus))]
    found = min(_share_beside_reading(_num_cpus(nodes), fitting), *shares)
    if found <= 0:
        raise ClusterError(
            f"{_num_cpus(nodes)} CPU beside {fitting} actors on GPUs; a job needs {MIN_CPUS}: one reads, and "
            "every node with GPUs needs one"
        )
    return found


def _share_beside_reading(cpus: int, actors: int) -> float:
    """The CPUs of each actor that leave room for a read and a commit beside it.

    Without room for a commit beside a read, shards are committed only once all of them are read. Rounded
    down to what Ray counts in, which would round it up.
    """
    return min(ACTOR_CPUS, math.floor((cpus - READ_CPUS - COMMIT_CPUS) / actors * 1e4) / 1e4)


def num_readers(cpus: int, actors: int, actor_cpus: float) -> int:
    """The shards that Ray lets read at once beside the actors and a commit."""
    return int((cpus - actors * actor_cpus - COMMIT_CPUS) / READ_CPUS)


def _warn_of_few_cpus(cpus: int, actors: int, actor_cpus: float, *, num_gpus: float) -> None:
    readers = num_readers(cpus, actors, actor_cpus)
    rtfx = readers * READ_RTFX
    if rtfx < num_gpus * GPU_RTFX:
        log.warning(
            "%d CPUs beside %g GPUs: %d of them read, which reaches RTFx %s, %s for each GPU; an H100 may "
            "take %s with large-v3-turbo. More CPUs, or further nodes of CPUs, make the job faster",
            *(cpus, num_gpus, readers, f"{rtfx:,.0f}", f"{rtfx / num_gpus:,.0f}", f"{GPU_RTFX:,.0f}"),
        )


def _cpu_workers(run: RunOptions) -> Workers:
    nodes = [int(node.get("CPU", 0)) for node in _alive_nodes()]
    cpus, actors = sum(nodes), run.max_actors or 1
    actors_per_node = -(-actors // len(nodes))
    if cpus < MIN_CPUS:
        raise ClusterError(
            f"the cluster has {cpus} CPU; a job on CPUs needs {MIN_CPUS}: one reads beside the model"
        )
    most = int((cpus - READ_CPUS) / ACTOR_CPUS)
    if actors > most:
        raise OptionError(f"--actors {actors}: must be at most {most} on {counted(cpus, 'CPU')}")
    threads = max(1, max(nodes) // actors_per_node)
    reason = f"a node has {counted(max(nodes), 'CPU')}" if on_cluster() else allowed_cpus().reason
    log.info("%s with %s each (%s)", counted(actors, "actor"), counted(threads, "thread"), reason)
    return Workers(
        min_actors=run.min_actors or 1,
        max_actors=actors,
        gpus_per_actor=0.0,
        actor_cpus=_share_beside_reading(cpus, actors),
        threads_per_actor=threads,
    )
