"""Names of an output's files, and Parquet to bytes and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.output.store import Store, existing_store
from pipeline.schema import PLAN, TRANSCRIPTS

JOB = "_job.json"


def transcripts_name(shard_id: int) -> str:
    """The name of a shard's transcripts in the output."""
    return f"transcripts/shard-{shard_id:06d}.parquet"


def metrics_name(shard_id: int) -> str:
    """The name of a shard's marker in the output."""
    return f"metrics/shard-{shard_id:06d}.parquet"


def overflow_name(shard_id: int) -> str:
    """The name of the plan rows that did not fit into a shard."""
    return f"plan/overflow-{shard_id:06d}.parquet"


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


def read_overflow(store: Store, shard_ids: Iterable[int]) -> pa.Table:
    """The plan rows that did not fit into these committed shards, in the order of the shards."""
    contents = (store.read(overflow_name(shard_id)) for shard_id in sorted(shard_ids))
    tables = [parquet_table(content, PLAN) for content in contents if content is not None]
    return pa.concat_tables(tables) if tables else PLAN.empty_table()


def plan_name(number: int) -> str:
    """The name of the plan (0) or of its n-th round of overflow in the output."""
    return f"plan/plan-{number:05d}.parquet"


def read_transcripts(output: str) -> Iterator[dict[str, Any]]:
    """The rows of `TRANSCRIPTS` of an output, shard by shard. Raises `OutputError` if there is no output."""
    store = existing_store(output)
    for name in store.names("transcripts"):
        yield from parquet_table(store.read(name) or b"", TRANSCRIPTS).to_pylist()
