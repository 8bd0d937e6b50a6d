"""Passes over units of work, until nothing is left."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from pipeline import planning
from pipeline.adaptive.calibration import CalibrationTask
from pipeline.adaptive.epochs import Epochs
from pipeline.adaptive.files import DECISION
from pipeline.adaptive.gate import forget_stall
from pipeline.adaptive.job_policy import JobPolicy, ladder_of
from pipeline.adaptive.policy_file import PolicyFile
from pipeline.config import JobOptions, JobRequest, RunOptions
from pipeline.dataflow import cluster, workers
from pipeline.driver import policy
from pipeline.driver.model import check_memory, find_model
from pipeline.driver.progress import JobProgress
from pipeline.driver.run_record import RunRecord
from pipeline.errors import UnfinishedError
from pipeline.metrics.shard import RunStamp
from pipeline.output import attempts, files
from pipeline.output.files import plan_name
from pipeline.output.state import OutputState, WorkUnit
from pipeline.output.store import Store
from pipeline.schema import PLAN

if TYPE_CHECKING:
    from pipeline.dataflow.stages import RoundContext

MAX_IDLE_ROUNDS = 3  # what waited in a process that was killed carries no mark: its round may achieve nothing
# Ray takes as long to start as a laptop takes for minutes of audio.
MAX_LOCAL_HOURS = 1.0
log = logging.getLogger("earshard")


class Unfinished(UnfinishedError):
    """Work is left that no round could do; running the same command again resumes it."""


class WorkState(Protocol):
    """What is done and left of some work: `OutputState` of a job, or the trials of a search."""

    @property
    def store(self) -> Store:
        """Where it is kept."""
        ...

    @property
    def stamp(self) -> RunStamp:
        """The run that works on it."""
        ...

    def units(self) -> list[WorkUnit]:
        """What is left to do."""
        ...

    def reload(self) -> None:
        """Read the files again."""
        ...

    def progress(self) -> tuple[int, ...]:
        """Counts that differ after a round that achieved something."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The passes of one run, on the workers that it was given. local: in this process, without Ray."""

    state: WorkState
    options: JobOptions
    workers: workers.Workers
    load: Callable[[], Any]
    local: bool

    def until_done(self, one_round: Callable[[list[WorkUnit], int], None]) -> None:
        """Call with what is left and the round's number. Raises `Unfinished` when several achieve nothing."""
        number = num_idle = 0
        while units := self.state.units():
            number += 1
            before = self.state.progress()
            one_round(units, number)
            self.state.reload()
            num_idle = num_idle + 1 if self.state.progress() == before else 0
            if num_idle == MAX_IDLE_ROUNDS:
                root = self.state.store.root
                raise Unfinished(f"{root}: no progress in {num_idle} rounds; the log says why")

    def run(self, units: Sequence[WorkUnit], this_round: RoundContext) -> Iterator[dict[str, Any]]:
        """One pass; yields the row of each marker as it is committed."""
        tables = [unit.table() for unit in units]
        if self.local:
            from pipeline.dataflow import local

            markers = local.run_round(tables, this_round)
        else:
            from pipeline.dataflow import graph

            markers = graph.run_round(tables, this_round)
        for marker in markers:
            yield from marker.to_pylist()

    def context(
        self, name: object, *, work: type, commit: Callable[..., pa.Table], **adaptive: Any
    ) -> RoundContext:
        """The context of a round; `name` tells it from the others of this run."""
        from pipeline.dataflow.stages import RoundContext
        from pipeline.reading.shard_reader import ReadOptions

        return RoundContext(
            store=self.state.store,
            stamp=self.state.stamp,
            round_id=f"{self.state.stamp.run_id}-{name}",
            node=str if self.local else cluster.this_node,
            actor=str if self.local else cluster.this_actor,
            reading=ReadOptions.of(self.options),
            load=self.load,
            language=self.options.language,
            workers=self.workers,
            work=work,
            commit=commit,
            **adaptive,
        )


@contextmanager
def open_rounds(
    state: WorkState,
    request: JobRequest,
    options: JobOptions,
    run: RunOptions,
    record: RunRecord,
    load: Callable[[workers.Workers], Any],
) -> Iterator[Rounds]:
    """The rounds of a run, in this process, or on the Ray that it joins or starts.

    load: makes what the workers work with. Raises `ClusterError`, and `OptionError` for workers that there is
    no room for.
    """
    units = state.units()
    local = is_local(run, units)
    with ExitStack() as stack:
        stack.enter_context(_forgetting_marks_when_stopped(state))
        if local:
            chosen = workers.local_workers(run)
            record.gpus_held = lambda: chosen.gpus_per_actor
        else:
            if not (cluster.on_cluster() or workers.has_gpus(run)):
                check_memory(options, num_actors=run.max_actors or 1, beside=cluster.RAY_BYTES)
            stack.enter_context(cluster.connected())
            chosen = workers.choose_workers(run, len(units))
            record.gpus_held = cluster.gpus_held
            model = [request.model] if os.path.exists(request.model) else []
            cluster.refuse_private_paths([*request.inputs, str(state.store.root), *model])
        yield Rounds(state=state, options=options, workers=chosen, load=partial(load, chosen), local=local)


def is_local(run: RunOptions, units: Sequence[WorkUnit]) -> bool:
    """Whether a run is one process: as it was asked for, or up to an hour of audio where no Ray is named."""
    if run.local is not None:
        return run.local
    if cluster.on_cluster() or cluster.is_connected() or (run.max_actors or 1) > 1:
        return False
    audio_s = 0.0
    for row in itertools.chain.from_iterable(unit.rows.to_pylist() for unit in units):
        stated = (row["uri"], row["member"], row["bytes"], row["duration_s"])
        audio_s += max(planning.MIN_ESTIMATE_S, planning.estimate_s(*stated))
        if audio_s > MAX_LOCAL_HOURS * 3600:
            return False
    return True


@dataclass(frozen=True, kw_only=True)
class JobRounds:
    """The passes of a job: some to calibrate adaptive sparsity, others to transcribe."""

    rounds: Rounds
    state: OutputState

    def job_policy(self, given: PolicyFile | None) -> JobPolicy | None:
        """The policy of adaptive sparsity; None at a fixed sparsity.

        given: a file's. Without one the evidence that ships for these weights serves, and without that the
        job calibrates itself, as it goes on doing where it has begun to.
        """
        options, store, plan_hash = self.rounds.options, self.state.store, self.state.stamp.plan_hash
        if options.wer_budget is None:
            return None
        snapshot = find_model(options.model, options.model_revision)
        found = given or policy.shipped_within(snapshot, options.wer_budget)
        if found is not None and store.read(DECISION) is None:
            return policy.policy_from_file(store, found, plan_hash, options.wer_budget)
        return policy.policy_from_calibration(
            store,
            ladder_of(snapshot.config["encoder_layers"]),
            files.parquet_table(store.read(plan_name(0)) or b"", PLAN),
            plan_hash,
            options.wer_budget,
            shard_s=options.shard_hours * 3600,
            run_units=self.calibrate,
        )

    def calibrate(self, units: Sequence[WorkUnit], calibration: CalibrationTask, number: int) -> None:
        """Decode units of the calibration's sample at every level."""
        from pipeline.dataflow.stages import CalibrateShard, commit_sample

        this_round = self.rounds.context(
            f"calibration-{number}", work=CalibrateShard, commit=commit_sample, calibration=calibration
        )
        for _ in self.rounds.run(units, this_round):
            raise AssertionError("a sample has no metrics")
        lost_units(self.state.store, this_round.round_id)

    def transcribe(
        self, units: Sequence[WorkUnit], number: int, policy: JobPolicy | None, progress: JobProgress
    ) -> None:
        """One pass over what is left of the shards, each at the level of its epoch."""
        from pipeline.dataflow.stages import TranscribeShard

        store = self.state.store
        epochs = None if policy is None else self._epochs(policy)
        this_round = self.rounds.context(number, work=TranscribeShard, commit=self._commit(), policy=policy)
        for row in self.rounds.run(units, this_round):
            progress.add(row)
            attempts.forget_shard(store, row["shard_id"])
            if epochs is not None:
                epochs.add(row)
                epochs.publish(len(self.state.shards()))
        forget_stall(store, this_round.round_id)
        isolated = {unit.name() for unit in units if unit.attempt == attempts.MAX_ATTEMPTS}
        found = lost_units(store, this_round.round_id)
        lost = {name: text for name, text in found.items() if name in isolated}
        self.state.commit_pieces(lost, self.rounds.options.model)

    def _commit(self) -> Callable[..., pa.Table]:
        """How a shard is committed: watched, where there is a Ray that exports counters."""
        from pipeline.dataflow.stages import commit_result

        if self.rounds.local:
            return commit_result
        from pipeline.dataflow.monitoring import commit_and_count

        return partial(commit_and_count, commit=commit_result)

    def _epochs(self, policy: JobPolicy) -> Epochs | None:
        """The levels that are decided before the round begins; None for a job that runs dense."""
        if policy.start == 0:
            return None
        epochs = Epochs(self.state.store, policy)
        for row in self.state.markers.to_pylist():
            epochs.add(row)
        epochs.publish(len(self.state.shards()))
        return epochs


@contextmanager
def _forgetting_marks_when_stopped(state: WorkState) -> Iterator[None]:
    """An error or a stop that the driver lives to see is not the fault of what was in work."""
    try:
        yield
    except BaseException:
        attempts.forget_run(state.store, state.stamp.run_id)
        raise


def lost_units(store: Store, round_id: str) -> dict[str, str]:
    """The units that a round lost, and their exceptions, but for those that a lost node took along."""
    lost = attempts.marks_left_in(store, round_id)
    nodes = {found.node for found in lost.values()} - {""}
    gone = cluster.lost_nodes(nodes) if nodes else set()
    for name, found in lost.items():
        failed = f"the attempt failed: {found.exception}"
        log.warning("%s: %s", name, failed if found.exception else "the attempt's process ended")
    return {
        name: found.exception
        for name, found in lost.items()
        if found.node not in gone or not attempts.excuse(store, name, round_id)
    }
