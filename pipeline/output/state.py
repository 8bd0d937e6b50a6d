"""What is planned, done and left of an output, read from its files and from nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UnfinishedError
from pipeline.metrics import shard
from pipeline.output import attempts, commit, files
from pipeline.output.files import plan_name
from pipeline.output.store import Store
from pipeline.planning import overflow_plan
from pipeline.schema import METRICS, PLAN, SHARD_PLAN, TRANSCRIPTS, table_of

KEYS = pa.schema([TRANSCRIPTS.field(name) for name in ("recording_id", "part")])


class IncompleteOutput(UnfinishedError):
    """Planned rows are missing from committed shards; the message names one."""


@dataclass(frozen=True, kw_only=True)
class WorkUnit:
    """A shard, or one row of it, to be worked on in a round. `rows` has the schema `PLAN`."""

    shard_id: int
    attempt: int
    rows: pa.Table

    def name(self) -> str:
        """The unit's name in the attempts."""
        return attempts.unit_of(self.shard_id, self.attempt, self.rows.slice(0, 1).to_pylist())

    def table(self) -> pa.Table:
        """The unit as a row of `SHARD_PLAN`."""
        rows = self.rows.combine_chunks().to_struct_array().combine_chunks()
        columns = [[self.shard_id], [self.attempt], pa.ListArray.from_arrays([0, len(rows)], rows)]
        return pa.table(columns, names=SHARD_PLAN.names).cast(SHARD_PLAN)


class OutputState:
    """The state of an output: its plan, its markers, and the shards that are left."""

    def __init__(self, store: Store, stamp: shard.RunStamp, *, shard_hours: float) -> None:
        self.store = store
        self.stamp = stamp
        self._shard_hours = shard_hours
        self.markers = METRICS.empty_table()
        self.reload()

    def reload(self) -> None:
        """Read the plan again and new markers, and plan the overflow of a round that is whole."""
        self.markers = commit.committed(
            self.store, self.stamp.fingerprint, self.stamp.plan_hash, known=self.markers
        )
        done = self.done()
        tables: list[pa.Table] = []
        while True:
            table = self._plan_round(tables, done)
            if table is None:
                break
            tables.append(table)
        self.plan = pa.concat_tables(tables)

    def _plan_round(self, tables: list[pa.Table], done: set[int]) -> pa.Table | None:
        """The plan's next round: as stored, or made of the overflow of the one before it."""
        content = self.store.read(plan_name(len(tables)))
        if content is not None:
            return files.parquet_table(content, PLAN)
        shards = set(tables[-1].column("shard_id").to_pylist())
        overflow = files.read_overflow(self.store, shards) if shards <= done else {}
        if not overflow:
            return None
        first = 1 + max(max(table.column("shard_id").to_pylist()) for table in tables)
        moved = pa.concat_tables(overflow.values()).to_pylist()
        plan = overflow_plan(moved, first_shard_id=first, shard_hours=self._shard_hours)
        self.store.publish(plan_name(len(tables)), files.parquet_bytes(plan))
        return plan

    def progress(self) -> tuple[int, ...]:
        """Counts that differ after a round that achieved something: a commit, an attempt, a piece."""
        return (
            len(self.done()),
            sum(attempts.count_marks(self.store).values()),
            attempts.count_excused(self.store),
            len(self.store.names(attempts.PIECES)),
        )

    def done(self) -> set[int]:
        """The shards that are committed."""
        return set(self.markers.column("shard_id").to_pylist())

    def shards(self) -> set[int]:
        """The shards that are planned so far."""
        return set(self.plan.column("shard_id").to_pylist())

    def rows(self, shard_id: int) -> pa.Table:
        """The rows of the plan in one shard."""
        return self.plan.filter(pc.field("shard_id") == shard_id)

    def units(self) -> list[WorkUnit]:
        """What is left to do, each shard whole in its first two attempts and row by row in the third."""
        done, marks, in_pieces = (
            self.done(),
            attempts.count_marks(self.store),
            attempts.has_pieces(self.store),
        )
        units = []
        for shard_id, rows in self._rows_by_shard():
            if shard_id in done:
                continue
            name = attempts.shard_unit(shard_id)
            attempt = min(marks[name] + 1, attempts.MAX_ATTEMPTS)
            if attempt < attempts.MAX_ATTEMPTS and name not in in_pieces:
                units.append(WorkUnit(shard_id=shard_id, attempt=attempt, rows=rows))
            else:
                units += [unit for unit in _single_rows(shard_id, rows) if self._is_left(unit, marks)]
        return units

    def _is_left(self, unit: WorkUnit, marks: Mapping[str, int]) -> bool:
        name = unit.name()
        return marks[name] < attempts.MAX_ATTEMPTS and attempts.read_piece(self.store, name) is None

    def _rows_by_shard(self) -> Iterator[tuple[int, pa.Table]]:
        """The plan shard by shard, without making a million rows into Python objects."""
        plan = self.plan.sort_by([("shard_id", "ascending")])
        shard_ids = plan.column("shard_id").to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(shard_ids)) + 1).tolist(), len(shard_ids)]
        for start, end in itertools.pairwise(starts):
            if end > start:
                yield int(shard_ids[start]), plan.slice(start, end - start)

    def commit_pieces(self, lost: Mapping[str, str], model: str) -> None:
        """Commit the shards whose rows are all kept as pieces, or given up.

        Given up are the `lost` units (with the exception that ended them, or ""), and those that three
        drivers did not outlive.
        """
        marks = attempts.count_marks(self.store)
        given_up = {name: "" for name, num in marks.items() if num >= attempts.MAX_ATTEMPTS} | dict(lost)
        in_pieces = attempts.has_pieces(self.store) | {attempts.shard_of(name) for name in given_up}
        for shard_id, rows in self._rows_by_shard():
            if attempts.shard_unit(shard_id) not in in_pieces or shard_id in self.done():
                continue
            names = [unit.name() for unit in _single_rows(shard_id, rows)]
            pieces = [attempts.read_piece(self.store, name) for name in names]
            if all(piece is not None or name in given_up for piece, name in zip(pieces, names, strict=True)):
                exceptions = [given_up.get(name, "") for name in names]
                self._commit_shard(shard_id, rows.to_pylist(), pieces, exceptions, model)
                attempts.forget_shard(self.store, shard_id)

    def _commit_shard(
        self,
        shard_id: int,
        rows: list[dict[str, Any]],
        pieces: list[pa.Table | None],
        exceptions: list[str],
        model: str,
    ) -> None:
        transcripts, measures, overflow = [], [], []
        adopted = self._adopted_keys(shard_id)
        for row, piece, exception in zip(rows, pieces, exceptions, strict=True):
            if adopted is not None and (row["recording_id"], row["part"]) not in adopted:
                overflow.append(row)
                measures.append(shard.no_measures(model))
                continue
            if piece is None:
                transcripts.append(attempts.crashed_row(row, model, exception))
                measures.append(shard.no_measures(model))
                continue
            result = piece.to_pylist()[0]
            scored = shard.with_counts(table_of(TRANSCRIPTS, result["transcripts"]), result["scorable"])
            transcripts += scored.to_pylist()
            measures.append(result["measures"])
            overflow += result["overflow"]
        result = {
            "shard_id": shard_id,
            "attempt": attempts.MAX_ATTEMPTS,
            "transcripts": transcripts,
            "scorable": [False] * len(transcripts),  # the pieces are scored
            "measures": shard.join_measures(measures),
            "overflow": overflow,
        }
        commit.commit_shard(self.store, result, self.stamp)

    def _adopted_keys(self, shard_id: int) -> set[tuple[str, int]] | None:
        """The rows of transcripts that a whole attempt left when it died before its marker, if there are any.

        They are adopted, and may lack what had no room beside its neighbours but has alone.
        """
        content = self.store.read(files.transcripts_name(shard_id))
        return _keys(files.parquet_table(content, TRANSCRIPTS)) if content is not None else None

    def reopen_failed(self) -> int:
        """Take shards with failed rows apart, so that only those rows run again. Returns their number."""
        num_failed = 0
        for marker in self.markers.filter(pc.field("num_failed") > 0).to_pylist():
            num_failed += marker["num_failed"]
            self._reopen(marker)
        self.reload()
        return num_failed

    def _reopen(self, marker: dict[str, Any]) -> None:
        shard_id = marker["shard_id"]
        rows = self.transcripts(shard_id).to_pylist()
        overflow = files.read_overflow(self.store, [shard_id]).get(shard_id, PLAN.empty_table()).to_pylist()
        measures = marker
        for plan_row in self.rows(shard_id).to_pylist():
            key = (plan_row["recording_id"], plan_row["part"])
            kept = [row for row in rows if (row["recording_id"], row["part"]) == key]
            moved = [row for row in overflow if row["recording_id"] == key[0]]
            if any(row["status"] == "failed" for row in kept):
                continue
            piece = attempts.finished_piece(shard_id, kept, measures, moved)
            attempts.keep_piece(self.store, attempts.row_unit(shard_id, *key), piece)
            measures = shard.no_measures(marker["model"])
        self.store.delete(files.metrics_name(shard_id))  # first: a marker never vouches for what is gone
        self.store.delete(files.transcripts_name(shard_id))
        self.store.delete(files.overflow_name(shard_id))

    def transcripts(self, shard_id: int) -> pa.Table:
        """The committed rows of one shard."""
        name = files.transcripts_name(shard_id)
        return _rows_of(name, self.store.read(name), TRANSCRIPTS)

    def check_rows(self) -> None:
        """Compare plan and output by id. Raises `IncompleteOutput` naming a row that is missing."""
        planned = dict(self._rows_by_shard())
        moved = files.read_overflow(self.store, planned)
        found = files.read_ahead(self.store, list(map(files.transcripts_name, planned)))
        for (shard_id, rows), (name, content) in zip(planned.items(), found, strict=True):
            missing = _keys(rows) - _keys(_rows_of(name, content, KEYS))
            if missing and shard_id in moved:
                missing -= _keys(moved[shard_id])
            for recording_id, part in sorted(missing):
                raise IncompleteOutput(f"{name}: has no row of {recording_id}, part {part}")


def _rows_of(name: str, content: bytes | None, schema: pa.Schema) -> pa.Table:
    """The rows of the transcripts of a committed shard. Raises `IncompleteOutput`."""
    if content is None:
        raise IncompleteOutput(f"{name}: is missing, but its metrics file is there")
    return files.parquet_table(content, schema)


def _keys(table: pa.Table) -> set[tuple[str, int]]:
    columns = (table.column(name).to_pylist() for name in KEYS.names)
    return set(zip(*columns, strict=True))


def _single_rows(shard_id: int, rows: pa.Table) -> Iterator[WorkUnit]:
    """The rows of a shard as units of their own, for its third attempt."""
    for number in range(rows.num_rows):
        yield WorkUnit(shard_id=shard_id, attempt=attempts.MAX_ATTEMPTS, rows=rows.slice(number, 1))
