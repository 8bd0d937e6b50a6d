"""Passes over units of work: one to calibrate adaptive sparsity, others until no shard is left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.adaptive.calibration import CalibrationTask
from pipeline.adaptive.epochs import Epochs
from pipeline.adaptive.gate import forget_stall
from pipeline.adaptive.job_policy import JobPolicy, default_ladder
from pipeline.adaptive.policy_file import PolicyFile
from pipeline.config import JobOptions
from pipeline.dataflow import cluster, workers
from pipeline.driver import policy
from pipeline.driver.progress import JobProgress
from pipeline.longform import Transcriber
from pipeline.output import attempts, files
from pipeline.output.files import plan_name
from pipeline.output.state import OutputState, WorkUnit
from pipeline.output.store import Store
from pipeline.schema import PLAN

if TYPE_CHECKING:
    from pipeline.dataflow.stages import RoundContext

log = logging.getLogger("earshard")


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The passes of one run, on the workers that it was given. `load_engine` makes the model in an actor."""

    ledger: OutputState
    options: JobOptions
    workers: workers.Workers
    load_engine: Callable[[], Transcriber]

    def job_policy(self, given: PolicyFile | None) -> JobPolicy | None:
        """The policy of adaptive sparsity, calibrated if need be; None at a fixed sparsity."""
        budget = self.options.wer_budget
        if budget is None:
            return None
        store, plan_hash = self.ledger.store, self.ledger.stamp.plan_hash
        plan = files.parquet_table(store.read(plan_name(0)) or b"", PLAN)
        if given is not None:
            return policy.policy_from_file(store, given, plan, plan_hash, budget)
        return policy.policy_from_calibration(
            store,
            default_ladder(self.options.sparsify_layer, self.options.selector),
            plan,
            plan_hash,
            budget,
            shard_s=self.options.shard_hours * 3600,
            run_units=self.calibrate,
        )

    def calibrate(self, units: Sequence[WorkUnit], calibration: CalibrationTask, number: int) -> None:
        """Decode units of the calibration's sample at every level."""
        from pipeline.dataflow.stages import commit_sample

        round_id = f"{self.ledger.stamp.run_id}-calibration-{number}"
        this_round = self._round(round_id, calibration=calibration)
        for _ in self._run(units, this_round, commit=commit_sample):
            raise AssertionError("a sample has no metrics")
        lost_units(self.ledger.store, round_id)

    def transcribe(
        self, units: Sequence[WorkUnit], number: int, policy: JobPolicy | None, progress: JobProgress
    ) -> None:
        """One pass over what is left of the shards, each at the level of its epoch."""
        from pipeline.dataflow.monitoring import commit_and_count
        from pipeline.dataflow.stages import commit_result

        store = self.ledger.store
        round_id = f"{self.ledger.stamp.run_id}-{number}"
        epochs = None if policy is None else self._epochs(policy)
        this_round = self._round(round_id, policy=policy)
        for marker in self._run(units, this_round, commit=partial(commit_and_count, commit=commit_result)):
            row = marker.to_pylist()[0]
            progress.add(row)
            attempts.forget_shard(store, row["shard_id"])
            if epochs is not None:
                epochs.add(row)
                epochs.publish(len(self.ledger.shards()))
        forget_stall(store, round_id)
        isolated = {unit.name() for unit in units if unit.attempt == attempts.MAX_ATTEMPTS}
        lost = {name: text for name, text in lost_units(store, round_id).items() if name in isolated}
        self.ledger.commit_pieces(lost, self.options.model)

    def _epochs(self, policy: JobPolicy) -> Epochs | None:
        """The levels that are decided before the round begins; None for a job that runs dense."""
        if policy.start == 0:
            return None
        epochs = Epochs(self.ledger.store, policy)
        for row in self.ledger.markers.to_pylist():
            epochs.add(row)
        epochs.publish(len(self.ledger.shards()))
        return epochs

    def _round(self, round_id: str, **kind: Any) -> RoundContext:
        from pipeline.dataflow.stages import RoundContext

        ledger = self.ledger
        return RoundContext(
            store=ledger.store, stamp=ledger.stamp, round_id=round_id, node=cluster.this_node, **kind
        )

    def _run(
        self, units: Sequence[WorkUnit], this_round: RoundContext, *, commit: Callable[..., pa.Table]
    ) -> Iterator[pa.Table]:
        from pipeline.dataflow.graph import run_round
        from pipeline.reading.shard_reader import ReadOptions

        return run_round(
            [unit.table() for unit in units],
            reading=ReadOptions.of(self.options),
            load_engine=self.load_engine,
            language=self.options.language,
            workers=self.workers,
            this_round=this_round,
            commit=commit,
        )


def lost_units(store: Store, round_id: str) -> dict[str, str]:
    """The units that a round lost, and their exceptions, but for those that a lost node took along."""
    lost = attempts.marks_left_in(store, round_id)
    nodes = {found.node for found in lost.values()} - {""}
    gone = cluster.lost_nodes(nodes) if nodes else set()
    for name, found in lost.items():
        cause = f": {found.exception}" if found.exception else ""
        log.warning("%s: attempt did not come back%s", name, cause)
    return {
        name: found.exception
        for name, found in lost.items()
        if found.node not in gone or not attempts.excuse(store, name, round_id)
    }
