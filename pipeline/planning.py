"""Recordings to the rows of a plan: sorted, cut into parts where they are long, filled into shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import PLAN
from pipeline.sources.recording import InputError, Recording, media_rate

BATCH_ROWS = 65_536
MIN_PART_S = 120  # two cuts, each within 30 s of its nominal place, never cross
MIN_ESTIMATE_S = 1.0  # every file costs something: a shard of an hour holds at most 3,600
# A plan with nothing in these has the hash that it had before them.
LATER_COLUMNS = ("language", "prompt", "language_guess")
OVERFLOW_FACTOR = 4.0  # what ran over was underestimated at least twice


def make_plan(recordings: Iterable[Recording], *, shard_hours: float) -> pa.Table:
    """Plan recordings: a table of `PLAN`, the same for the same recordings in any order.

    Rows are sorted by recording_id. A recording whose stated duration is longer than a shard becomes parts;
    the last part of every recording is open-ended. Shards fill to about `shard_hours` by the stated
    duration, else by an estimate from the bytes.

    Raises:
        InputError: two recordings have the same id.
    """
    return plan_of(found_table(recordings), shard_hours=shard_hours)


def found_table(recordings: Iterable[Recording]) -> pa.Table:
    """Recordings as `FOUND`, sorted by recording_id. Raises `InputError` if two have the same id."""
    rows = _table(recordings)
    rows = rows.take(pc.sort_indices(rows, [("recording_id", "ascending")]))
    _check_unique(rows.column("recording_id"))
    return rows


def plan_of(rows: pa.Table, *, shard_hours: float) -> pa.Table:
    """The plan of recordings as `found_table` makes them, see `make_plan`."""
    estimates = rows.column("estimate_s").to_numpy()
    stated = rows.column("duration_s").to_numpy()
    num_parts = _num_parts(stated, part_seconds(shard_hours))
    if num_parts.max(initial=1) > 1:
        rows = rows.take(pa.array(np.repeat(np.arange(len(num_parts)), num_parts)))
    return _with_shards(rows, num_parts, estimates, shard_hours)


def part_seconds(shard_hours: float) -> int:
    """The nominal length of a part: a shard, in whole seconds: parts start on a sample at any rate."""
    return max(MIN_PART_S, int(shard_hours * 3600))


def _num_parts(stated: np.ndarray, part_s: int) -> np.ndarray:
    """Parts per recording; the last one is up to half a part longer."""
    return np.maximum(1, np.rint(np.nan_to_num(stated) / part_s - 1e-9)).astype(np.int64)


def _with_shards(
    rows: pa.Table, num_parts: np.ndarray, estimates: np.ndarray, shard_hours: float
) -> pa.Table:
    part_s = part_seconds(shard_hours)
    part = np.arange(num_parts.sum()) - np.repeat(np.cumsum(num_parts) - num_parts, num_parts)
    last = part == np.repeat(num_parts, num_parts) - 1
    offsets = part * float(part_s)
    load = np.where(last, np.repeat(estimates, num_parts) - offsets, part_s)
    columns = {
        "part": pa.array(part.astype(np.int32)),
        "offset_s": pa.array(offsets),
        "duration_s": pa.array(np.full(len(part), float(part_s)), mask=last),
        "shard_id": pa.array(_fill(load, shard_hours * 3600)),
        "language_guess": pa.nulls(len(part), pa.string()),
    }
    arrays = [columns[name] if name in columns else rows.column(name) for name in PLAN.names]
    return pa.table(arrays, schema=PLAN)


def _fill(load: np.ndarray, shard_s: float, first_shard_id: int = 0) -> np.ndarray:
    """Shard ids for rows in order: a shard takes rows until the next would fill it past `shard_s`."""
    shards = np.empty(len(load), np.int32)
    shard, filled = first_shard_id, 0.0
    for i, seconds in enumerate(np.maximum(load, MIN_ESTIMATE_S).tolist()):
        if filled and filled + seconds > shard_s:
            shard, filled = shard + 1, 0.0
        shards[i] = shard
        filled += seconds
    return shards


OF_RECORDING = (
    *("recording_id", "uri", "member", "bytes", "identity", "reference"),
    *("language", "prompt"),
)
FOUND = pa.schema(
    [
        *(PLAN.field(name) for name in OF_RECORDING),
        pa.field("duration_s", pa.float64()),
        pa.field("estimate_s", pa.float64()),
    ]
)


def _table(recordings: Iterable[Recording]) -> pa.Table:
    """Recordings as columns, a batch at a time: a million of them never exist as objects at once."""
    iterator = iter(recordings)
    batches = []
    while batch := list(islice(iterator, BATCH_ROWS)):
        values = {name: [getattr(row, name) for row in batch] for name in FOUND.names[:-1]}
        values["estimate_s"] = [estimate_s(row.uri, row.member, row.bytes, row.duration_s) for row in batch]
        batches.append(pa.RecordBatch.from_pydict(values, schema=FOUND))
    return pa.Table.from_batches(batches, schema=FOUND)


def estimate_s(uri: str, member: str | None, num_bytes: int, duration_s: float | None) -> float:
    """Seconds of audio that a recording is taken to have before it is decoded."""
    if duration_s is not None:
        return duration_s
    return num_bytes / media_rate(uri, member).typical


def _check_unique(ids: pa.ChunkedArray) -> None:
    """Raise `InputError` naming ids that occur twice; `ids` is sorted."""
    if len(ids) < 2:
        return
    same = pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1))
    twice = ids.slice(1).filter(same).unique().to_pylist()
    if twice:
        shown = ", ".join(repr(name) for name in twice[:5])
        raise InputError(f"{len(twice)} ids are not unique: {shown}")


def plan_hash(plan: pa.Table, copies: pa.Table | None = None) -> str:
    """Hash of the rows of a plan, and of copies if there are any, 16 hexadecimal digits; however chunked."""
    digest = hashlib.sha256()
    for table in (plan, copies):
        if table is not None and (table is plan or table.num_rows):
            _update(digest, table)
    return digest.hexdigest()[:16]


def _update(digest: hashlib._Hash, table: pa.Table) -> None:
    for name in table.column_names:
        if name in LATER_COLUMNS and table.column(name).null_count == table.num_rows:
            continue
        digest.update(f"{name}\1".encode())
        for chunk in table.column(name).chunks:
            for first in range(0, len(chunk), BATCH_ROWS):
                texts = pc.fill_null(pc.cast(chunk.slice(first, BATCH_ROWS), pa.string()), "\1")
                digest.update("".join(f"{text}\0" for text in texts.to_pylist()).encode())


def overflow_plan(
    overflow_rows: Sequence[Mapping[str, Any]], *, first_shard_id: int, shard_hours: float
) -> pa.Table:
    """The plan of the next round: what ran over, in new shards from `first_shard_id` on.

    Raises:
        ValueError: two rows are the same part of a recording.
    """
    rows = sorted(overflow_rows, key=lambda row: (row["recording_id"], row["part"]))
    keys = {(row["recording_id"], row["part"]) for row in rows}
    if len(keys) != len(rows):
        raise ValueError("two overflow rows are the same part of a recording")
    load = np.array([_overflow_s(row, part_seconds(shard_hours)) for row in rows])
    shards = _fill(load, shard_hours * 3600, first_shard_id).tolist()
    return pa.Table.from_pylist(
        [{**row, "shard_id": shard} for row, shard in zip(rows, shards, strict=True)], schema=PLAN
    )


def _overflow_s(row: Mapping[str, Any], part_s: int) -> float:
    if row["duration_s"] is not None:
        return row["duration_s"]
    if row["offset_s"]:
        return float(part_s)
    return OVERFLOW_FACTOR * estimate_s(row["uri"], row["member"], row["bytes"], None)
