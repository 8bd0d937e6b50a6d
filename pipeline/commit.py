"""What is done is what is on disk: shard files, their markers, and what they vouch for.

A shard's transcripts are published first, its overflow next, its metrics last: the metrics file is the
marker that the shard is done. The bytes of the transcripts depend on nothing but the work, so a second
writer of the same shard finds what it would have written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import cost, scoring
from pipeline.schema import COUNTS, METRICS, PLAN, TRANSCRIPTS, table_of
from pipeline.storage import Store

SCORING = {b"normaliser": scoring.NORMALISER.encode()}


def transcripts_name(shard_id: int) -> str:
    """The name of a shard's transcripts in the output."""
    return f"transcripts/shard-{shard_id:06d}.parquet"


def metrics_name(shard_id: int) -> str:
    """The name of a shard's marker in the output."""
    return f"metrics/shard-{shard_id:06d}.parquet"


def overflow_name(shard_id: int) -> str:
    """The name of the plan rows that did not fit into a shard."""
    return f"plan/overflow-{shard_id:06d}.parquet"


@dataclass(frozen=True, kw_only=True)
class RunStamp:
    """What a run writes into every marker."""

    run_id: str
    fingerprint: str
    plan_hash: str
    gpu_hour_usd: float


class ForeignMarker(RuntimeError):
    """A marker vouches for another plan or other options; the message names the file."""


def parquet_bytes(table: pa.Table) -> bytes:
    """Serialise a table; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def parquet_table(content: bytes, schema: pa.Schema) -> pa.Table:
    """Read back what `parquet_bytes` made, as `schema`; a column that came later is null in an older file.

    Without Arrow's threads: now and then they abort the process at its exit (apache/arrow#34314).
    """
    table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    for field in schema:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


def scored(transcripts: pa.Table, scorable: Sequence[bool]) -> pa.Table:
    """Fill in the counts of the rows that have a reference of their own.

    `scorable` tells by row whether the reference is of this row alone; parts and channels of one
    recording are scored after they are joined.
    """
    rows = transcripts.to_pylist()
    for row, alone in zip(rows, scorable, strict=True):
        if alone and row["reference"] is not None and row["status"] == "ok":
            counts = scoring.count_errors(row["reference"], row["text"], row["language"])
            row.update({name: getattr(counts, name) for name in COUNTS})
    return table_of(TRANSCRIPTS, rows)


def total_counts(transcripts: pa.Table) -> scoring.Counts | None:
    """The sum of the counts of the scored rows; None if there are none."""
    rows = transcripts.select(COUNTS).to_pylist()
    scored_rows = [row for row in rows if row["num_hits"] is not None]
    return scoring.total(scoring.Counts(**row) for row in scored_rows) if scored_rows else None


def metrics_row(
    shard_id: int, attempts: int, transcripts: pa.Table, measures: Mapping[str, Any], stamp: RunStamp
) -> dict[str, Any]:
    """One row of `METRICS` but for the hash of the file: the measures, and what the rows themselves tell."""
    statuses = transcripts.column("status").to_pylist()
    audio_s = _sum(transcripts, "duration_s")
    counts = total_counts(transcripts)
    return {
        **dict.fromkeys(METRICS.names),
        **measures,
        "shard_id": shard_id,
        "run_id": stamp.run_id,
        "num_recordings": len(statuses),
        "num_failed": statuses.count("failed"),
        "audio_s": audio_s,
        "speech_s": _sum(transcripts, "speech_s"),
        "rtf": cost.rtf(measures["device_s"], audio_s),
        "rtfx": cost.rtfx(measures["device_s"], audio_s),
        **({name: getattr(counts, name) for name in COUNTS} if counts else {}),
        "wer": counts.wer if counts else None,
        "cost_usd": cost.cost_usd(measures["device_s"], stamp.gpu_hour_usd, measures["device"]),
        "fingerprint": stamp.fingerprint,
        "plan_hash": stamp.plan_hash,
        "transcripts_rows": len(statuses),
        "attempts": attempts,
        "finished_at": datetime.now(UTC),
    }


def commit_shard(
    store: Store,
    shard_id: int,
    attempts: int,
    transcripts: pa.Table,
    measures: Mapping[str, Any],
    overflow: pa.Table,
    stamp: RunStamp,
) -> pa.Table:
    """Publish a shard. Returns its marker: the one just written, or the one that was there first."""
    content = parquet_bytes(transcripts)
    if not store.publish(transcripts_name(shard_id), content):
        # Torn files never have this name, so what is there is a whole file of a writer that died before
        # its marker, or of one that is ahead of us. A marker vouches only for what it describes.
        content = store.read(transcripts_name(shard_id)) or content
        transcripts = parquet_table(content, TRANSCRIPTS)
    if overflow.num_rows:
        store.publish(overflow_name(shard_id), parquet_bytes(overflow))
    row = metrics_row(shard_id, attempts, transcripts, measures, stamp)
    row["transcripts_sha256"] = hashlib.sha256(content).hexdigest()
    marker = table_of(METRICS, [row]).replace_schema_metadata(SCORING)
    if not store.publish(metrics_name(shard_id), parquet_bytes(marker)):
        return read_marker(store, shard_id, stamp)
    return marker


def read_marker(store: Store, shard_id: int, stamp: RunStamp) -> pa.Table:
    """The marker of a committed shard. Raises `ForeignMarker` if it is of another job."""
    content = store.read(metrics_name(shard_id))
    assert content is not None, "a marker that was published is never deleted"
    marker = parquet_table(content, METRICS)
    _check_marker(marker, metrics_name(shard_id), stamp.fingerprint, stamp.plan_hash)
    return marker


def committed(store: Store, fingerprint: str, plan_hash: str) -> pa.Table:
    """All markers of an output as one `METRICS` table, by shard. Raises `ForeignMarker`."""
    markers = []
    for name in store.names("metrics"):
        if re.fullmatch(r"metrics/shard-\d{6}\.parquet", name):
            marker = parquet_table(store.read(name) or b"", METRICS)
            _check_marker(marker, name, fingerprint, plan_hash)
            markers.append(marker)
    return pa.concat_tables(markers) if markers else METRICS.empty_table()


def read_overflow(store: Store, shard_ids: Iterable[int]) -> pa.Table:
    """The plan rows that did not fit into these committed shards, in the order of the shards."""
    contents = (store.read(overflow_name(shard_id)) for shard_id in sorted(shard_ids))
    tables = [parquet_table(content, PLAN) for content in contents if content is not None]
    return pa.concat_tables(tables) if tables else PLAN.empty_table()


def _check_marker(marker: pa.Table, name: str, fingerprint: str, plan_hash: str) -> None:
    found = (marker.column("fingerprint")[0].as_py(), marker.column("plan_hash")[0].as_py())
    if found != (fingerprint, plan_hash):
        raise ForeignMarker(f"{name}: is of another job (fingerprint, plan {found})")


def _sum(table: pa.Table, column: str) -> float:
    return float(sum(value for value in table.column(column).to_pylist() if value is not None))
