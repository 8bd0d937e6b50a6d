"""The stages of the graph: one shard in, one shard out, each a thin callable over `pa.Table`.

They run in Ray's processes but import nothing of Ray, so a test calls them as they are.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.adaptive.calibration import CalibrationTask, calibrate_unit, sample_number
from pipeline.adaptive.files import sample_name
from pipeline.adaptive.gate import level_of, refuse_if_stalled
from pipeline.adaptive.job_policy import JobPolicy
from pipeline.adaptive.shadow import ShardLevel
from pipeline.dataflow.machine import allowed_bytes
from pipeline.dataflow.shared_lock import SharedLock
from pipeline.dataflow.transcription import transcribe_shard
from pipeline.dataflow.workers import Workers
from pipeline.errors import UnfinishedError
from pipeline.longform.transcribe import Transcriber
from pipeline.metrics import shard
from pipeline.output import attempts, commit, files
from pipeline.output.store import Store
from pipeline.reading.shard_reader import ReadOptions, ShardReader
from pipeline.schema import SAMPLE, SAMPLE_RESULT, SHARD_AUDIO, SHARD_RESULT, table_of
from pipeline.sources.locations import printable

log = logging.getLogger("earshard")

STARTS = "_tmp/starts"
MAX_DEATHS = 3
DEADLINE_EXIT = 1  # where the job is this process, its work is unfinished
DEADLINE_BASE_S = 600.0
DEADLINE_PER_AUDIO_S = {"cuda": 2.0, "cpu": 30.0}  # two shards share a GPU


@dataclass(frozen=True, kw_only=True)
class RoundContext:
    """One pass over units of work, as the graph and every stage of it know it.

    round_id: starts with the run's id. load: makes what `work` needs, in the actor: the engine. work: the
    class whose instances work on decoded shards, e.g. `TranscribeShard`. commit: makes of what they return
    what is on disk, as `commit_result` does.
    """

    store: Store
    stamp: shard.RunStamp
    round_id: str
    reading: ReadOptions
    load: Callable[[], Any]
    language: str
    workers: Workers
    work: Callable[[RoundContext], Callable[[pa.Table], pa.Table]]
    commit: Callable[..., pa.Table]
    node: Callable[[], str] = str  # the name of the node that it is called on, "" where there is but one
    actor: Callable[[], str] = str  # the name of the actor that it is called in, "" in the driver itself
    policy: JobPolicy | None = None  # of adaptive sparsity; None: as sparse as the engine was made
    calibration: CalibrationTask | None = None  # the units are a sample, and nothing is transcribed

    def make_worker(self) -> Any:
        """What `load` makes. Raises `NeverStarts` in an actor that died of it several times."""
        with starting(self.store, self.actor()):
            return self.load()

    def marked(self, unit: str) -> AbstractContextManager[None]:
        """Mark a unit as being worked on here."""
        return attempts.marked(self.store, unit, self.round_id, self.node())


def read_shard(plan: pa.Table, this_round: RoundContext) -> pa.Table:
    """Decode one shard: a row of `SHARD_PLAN` in, a row of `SHARD_AUDIO` out."""
    row = _only_row(plan)
    if this_round.policy is not None:
        refuse_if_stalled(row["shard_id"], this_round.policy, this_round.store, this_round.round_id)
    unit = attempts.unit_of(row["shard_id"], row["attempt"], row["rows"])
    with this_round.marked(unit):
        audio = _reader(this_round.reading).read(row["shard_id"], row["attempt"], row["rows"])
    for recording in audio.column("recordings")[0].as_py():
        if recording["error_type"] is not None:
            log.warning("%s: %s", recording["error_type"], recording["error_message"])
            continue
        if recording["streams"] is not None:
            log.warning("%s: %s", printable(recording["uri"]), recording["streams"])
        remark = recording["error_message"]
        if recording["partial"]:
            damage = f"{printable(recording['uri'])}: damaged or shorter than it declares"
            log.warning("partial: %s", remark or damage)
        elif remark is not None:
            log.warning("%s", remark)
    return audio.select(SHARD_AUDIO.names).cast(SHARD_AUDIO)


@cache
def _reader(options: ReadOptions) -> ShardReader:
    """One warm reader per process: Ray runs many shards in one worker."""
    reader = ShardReader(options)
    reader.__enter__()
    atexit.register(reader.__exit__, None, None, None)
    return reader


class TranscribeShard:
    """Run the engine on one decoded shard: a row of `SHARD_AUDIO` in, a row of `SHARD_RESULT` out.

    The engine is made by the actor that owns it. Several threads may call at once and share the engine.
    """

    def __init__(self, this_round: RoundContext) -> None:
        self._round = this_round
        self._engine: Transcriber = this_round.make_worker()
        self._attempts = _Attempts(this_round, self._engine.device)

    def __call__(self, audio: pa.Table) -> pa.Table:
        sparsity = self._sparsity(audio.column("shard_id")[0].as_py())
        with self._attempts.at(audio):
            return transcribe_shard(audio, self._engine, language=self._round.language, sparsity=sparsity)

    def _sparsity(self, shard_id: int) -> ShardLevel | None:
        """The level that is decided for a shard; waited for outside of any mark, since nothing is tried."""
        policy = self._round.policy
        return None if policy is None else level_of(shard_id, policy, self._round.store, self._round.round_id)


class CalibrateShard:
    """Decode a unit of the calibration's sample at every level: `SHARD_AUDIO` in, `SAMPLE_RESULT` out."""

    def __init__(self, this_round: RoundContext) -> None:
        assert this_round.calibration is not None
        self._language, self._task = this_round.language, this_round.calibration
        self._engine: Transcriber = this_round.make_worker()
        self._attempts = _Attempts(this_round, self._engine.device)

    def __call__(self, audio: pa.Table) -> pa.Table:
        with self._attempts.at(audio):
            return calibrate_unit(
                audio,
                self._engine,
                unit=sample_number(audio.column("shard_id")[0].as_py()),
                language=self._language,
                ladder=self._task.ladder,
            )


class _Attempts:
    """Attempts at units in one process, each marked while it lasts.

    A shard whose first attempt did not come back is alone in the process, so that it drags nobody with it. A
    call that outlives its deadline ends the process: Ray starts another, and the attempts that were marked
    count.
    """

    def __init__(self, this_round: RoundContext, device: str) -> None:
        self._round, self._sharing = this_round, SharedLock()
        self._deadline_per_audio_s = DEADLINE_PER_AUDIO_S[device.partition(":")[0]]

    @contextmanager
    def at(self, audio: pa.Table) -> Iterator[None]:
        """An attempt at a unit, a row of `SHARD_AUDIO`."""
        shard_id, attempt = (audio.column(name)[0].as_py() for name in ("shard_id", "attempt"))
        rows = audio.column("recordings")[0].as_py() or audio.column("overflow")[0].as_py()
        unit = attempts.unit_of(shard_id, attempt, rows)
        audio_s = sum(row["duration_s"] or 0.0 for row in rows)
        door = self._sharing.shared if attempt == 1 else self._sharing.exclusive
        deadline_s = DEADLINE_BASE_S + audio_s * self._deadline_per_audio_s
        with door(), self._round.marked(unit), _deadline(unit, deadline_s):
            yield


class NeverStarts(UnfinishedError):
    """A process died several times while it loaded its model."""


@contextmanager
def starting(store: Store, actor: str) -> Iterator[None]:
    """Count the starts of an actor while it loads its model; one that died of it leaves its count.

    actor: "" where nobody would start it again. Raises `NeverStarts`, with which the actor ends for good.
    """
    name = f"{STARTS}/{actor}"
    num_deaths = int(store.read(name) or 0) if actor else 0
    if num_deaths >= MAX_DEATHS:
        raise NeverStarts(
            f"the process of the model died {num_deaths} times while it was loaded, most likely for want of "
            f"memory: {allowed_bytes() / 1e9:.2f} GB are there"
        )
    if actor:
        store.replace(name, str(num_deaths + 1).encode())
    yield
    if actor:
        store.delete(name)


@contextmanager
def _deadline(unit: str, seconds: float) -> Iterator[None]:
    def expire() -> None:
        log.error("%s: not done after %.0f s; its process ends", unit, seconds)
        logging.shutdown()
        os._exit(DEADLINE_EXIT)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def commit_result(result: pa.Table, this_round: RoundContext) -> pa.Table:
    """Commit one shard, or keep one piece of a shard: a row of `SHARD_RESULT` in, `METRICS` out.

    A piece has no metrics of its own: its table is empty.
    """
    row = _only_row(result.select(SHARD_RESULT.names))
    if row["attempt"] > attempts.WHOLE_ATTEMPTS:
        unit = attempts.unit_of(row["shard_id"], row["attempt"], row["transcripts"] or row["overflow"])
        attempts.keep_piece(this_round.store, unit, result.cast(SHARD_RESULT))
        return schema.METRICS.empty_table()
    return commit.commit_shard(this_round.store, row, this_round.stamp)


def commit_sample(result: pa.Table, this_round: RoundContext) -> pa.Table:
    """Keep a unit of the calibration's sample: a row of `SAMPLE_RESULT` in, and no `METRICS` out."""
    row = _only_row(result.select(SAMPLE_RESULT.names))
    content = files.parquet_bytes(table_of(SAMPLE, row["windows"]))
    this_round.store.publish(sample_name(row["unit"]), content)
    return schema.METRICS.empty_table()


def _only_row(table: pa.Table) -> dict[str, Any]:
    assert table.num_rows == 1, f"a shard is one row, not {table.num_rows}"
    return table.to_pylist()[0]
