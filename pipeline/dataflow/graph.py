"""The graph: read, transcribe, commit. One shard is one row, in and out of every stage.

A retry can therefore neither lose nor double anything, and nothing is ever regrouped. Errors are not
raised here: what a pass did not commit, the driver finds missing and gives to the next one.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Iterable, Iterator
from functools import partial

import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from ray.data import ActorPoolStrategy, DataContext
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

from pipeline.dataflow import cluster
from pipeline.dataflow.cluster import ClusterError
from pipeline.dataflow.stages import RoundContext, read_shard
from pipeline.dataflow.workers import COMMIT_CPUS, READ_CPUS
from pipeline.errors import one_line
from pipeline.schema import SHARD_PLAN

GOING_S = 1.0


def run_round(units: Iterable[pa.Table], this_round: RoundContext) -> Iterator[pa.Table]:
    """One pass over units of work (`SHARD_PLAN` rows): `this_round.work` on each, by several threads at once.

    Yields the markers of shards as they are committed. Raises `ClusterError` if Ray cannot carry the round
    out at all, e.g. because no actor can load the model.
    """
    workers = this_round.workers
    _configure_ray_data()
    actors = _Actors(this_round.round_id)
    with warnings.catch_warnings():
        # Deprecated in favour of names that 2.60 does not have yet; the dependency is pinned to 2.60.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        plan = [unit.cast(SHARD_PLAN) for unit in units]
        shards = ray.data.from_arrow(plan)
        audio = shards.map_batches(
            partial(read_shard, this_round=this_round),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=READ_CPUS,
            max_retries=0,
        )
        results = audio.map_batches(
            this_round.work,
            fn_constructor_args=(this_round,),
            compute=ActorPoolStrategy(
                min_size=min(workers.min_actors, len(plan)),
                max_size=workers.max_actors,
                max_tasks_in_flight_per_actor=2 * workers.shards_in_work,  # as many wait
                max_concurrent_calls_per_actor=workers.shards_in_work,
                enable_true_multi_threading=True,
            ),
            batch_format="pyarrow",
            batch_size=1,  # a shard; Ray refuses to leave it out where there are GPUs
            num_cpus=workers.actor_cpus,
            num_gpus=workers.gpus_per_actor,
            max_restarts=-1,
            max_task_retries=0,
            ray_remote_args_fn=actors.next_name,
        )
        markers = results.map_batches(
            partial(this_round.commit, this_round=this_round),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=COMMIT_CPUS,
        )
    try:
        for marker in markers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            if marker.num_rows:
                yield marker
    except ray.exceptions.RayError as error:
        raise ClusterError(f"Ray ended the round: {one_line(error, slice(-1, None))}") from error
    except BaseException:  # a signal to stop, perhaps for Ray's processes too: they go within a second
        time.sleep(GOING_S)
        raise
    finally:
        if cluster.is_reachable():
            actors.end()


class _Actors:
    """The names of a round's actors, by which they are ended with it.

    Ray Data lets go of its handles and leaves the end to Ray. An actor that was started again after a crash
    can outlive that, and hold the CPUs or the GPU that the next round waits for.
    """

    def __init__(self, round_id: str) -> None:
        self._round_id, self._count = round_id, 0

    def next_name(self) -> dict[str, str]:
        """The options of the actor that Ray Data starts next."""
        self._count += 1
        return {"name": self._name(self._count)}

    def end(self) -> None:
        """End those that still live."""
        for number in range(1, self._count + 1):
            with contextlib.suppress(ValueError, ray.exceptions.RayError):  # it, or Ray, has ended already
                ray.kill(ray.get_actor(self._name(number)))

    def _name(self, number: int) -> str:
        return f"{self._round_id}-actor-{number}"


def _configure_ray_data() -> None:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a unit that failed is missing afterwards, and is found missing by id
    context.max_consecutive_actor_init_deaths = 3
    context.execution_no_progress_timeout_s = -1  # units have deadlines of their own
    _make_actors_of_values()


def _make_actors_of_values() -> None:
    """An actor is made of values, so that it can be started again whatever objects were lost meanwhile.

    Ray Data hands it references, of which Ray says in a line for each actor that they may get lost (its
    issue 53727); 2.60 has no option for it.
    """
    ActorPoolMapOperator._map_transformer_ref = property(lambda operator: operator._map_transformer)
    ActorPoolMapOperator._data_context_ref = property(lambda operator: operator.data_context)
