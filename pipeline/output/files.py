"""Names of an output's files, and Parquet to bytes and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import one_line
from pipeline.output.retried import OutputError, OutputFailed
from pipeline.output.store import Store, store_at
from pipeline.schema import PLAN, TRANSCRIPTS

JOB = "_job.json"
COPIES_NAME = "copies.parquet"
READERS = 16  # requests to a bucket at once: each takes far longer than what is made of its answer
PLAN_FOLDER, TRANSCRIPTS_FOLDER, METRICS_FOLDER, RUNS_FOLDER = "plan", "transcripts", "metrics", "runs"


def shard_name(shard_id: int) -> str:
    """The name of a shard, in files and to people."""
    return f"shard-{shard_id:06d}"


def transcripts_name(shard_id: int) -> str:
    """The name of a shard's transcripts in the output."""
    return f"{TRANSCRIPTS_FOLDER}/{shard_name(shard_id)}.parquet"


def metrics_name(shard_id: int) -> str:
    """The name of a shard's marker in the output."""
    return f"{METRICS_FOLDER}/{shard_name(shard_id)}.parquet"


def overflow_name(shard_id: int) -> str:
    """The name of the plan rows that did not fit into a shard."""
    return f"{PLAN_FOLDER}/overflow-{shard_id:06d}.parquet"


def existing_store(output: str) -> Store:
    """The store of a job that ran, to be read only. Raises `OutputError` if there is none."""
    store = store_at(output)
    try:
        if store.read(JOB) is not None:
            return store
    except OSError as error:
        raise OutputError(f"{store.root}: cannot be read: {one_line(error)}") from error
    raise OutputError(f"{store.root}: is not the output of a job")


def parquet_bytes(table: pa.Table) -> bytes:
    """Serialise a table; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def parquet_table(content: bytes, schema: pa.Schema) -> pa.Table:
    """The columns of `schema` of what `parquet_bytes` made; one that came later is null in an older file.

    Without Arrow's threads: now and then they abort the process at its exit (apache/arrow#34314).
    """
    file = pq.ParquetFile(pa.BufferReader(content))
    there = set(file.schema_arrow.names)
    table = file.read([name for name in schema.names if name in there], use_threads=False)
    for field in schema:
        if field.nullable and field.name not in there:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


def read_ahead(store: Store, names: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
    """Files by name with their content, None for one that is not there; in order, several at once."""
    waiting: deque[Future[bytes | None]] = deque()
    with ThreadPoolExecutor(min(READERS, len(names)) or 1) as pool:
        ahead = iter(names)
        for name in names:
            while len(waiting) < 2 * READERS and (next_name := next(ahead, None)) is not None:
                waiting.append(pool.submit(store.read, next_name))
            yield name, waiting.popleft().result()


def table_of_file(store: Store, name: str, content: bytes | None, schema: pa.Schema) -> pa.Table:
    """A Parquet file of an output as `schema`. Raises `OutputFailed` for one that is missing or torn."""
    try:
        return parquet_table(content or b"", schema)
    except pa.ArrowException as error:
        raise OutputFailed(f"{store.root}/{name}: cannot be read: {one_line(error)}") from error


def read_table(store: Store, name: str, schema: pa.Schema) -> pa.Table:
    """What `table_of_file` makes of a file that is still to be read."""
    return table_of_file(store, name, store.read(name), schema)


def read_tables(store: Store, names: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """What `read_table` gives of each, in order, several read at once."""
    for name, content in read_ahead(store, names):
        yield table_of_file(store, name, content, schema)


def read_overflow(store: Store, shard_ids: Iterable[int]) -> dict[int, pa.Table]:
    """The plan rows that did not fit into these committed shards, by shard; those that have any."""
    there = set(store.names(PLAN_FOLDER))
    names = {overflow_name(shard_id): shard_id for shard_id in sorted(shard_ids)}
    found = read_ahead(store, [name for name in names if name in there])
    return {names[name]: parquet_table(content, PLAN) for name, content in found if content is not None}


def plan_name(number: int) -> str:
    """The name of the plan (0) or of its n-th round of overflow in the output."""
    return f"{PLAN_FOLDER}/plan-{number:05d}.parquet"


def read_transcripts(
    output: str,
    *,
    schema: pa.Schema = TRANSCRIPTS,
    unreadable: Callable[[str, Exception], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of `TRANSCRIPTS` (or of some of its columns) of an output, shard by shard.

    unreadable: told the name of a file that cannot be read, and why; None: that is raised, as `OutputFailed`.
    Raises `OutputError` if there is no output.
    """
    store = existing_store(output)
    for name, content in read_ahead(store, store.names(TRANSCRIPTS_FOLDER)):
        try:
            rows = table_of_file(store, name, content, schema).to_pylist()
        except OutputFailed as error:
            if unreadable is None:
                raise
            unreadable(name, error)
        else:
            yield from rows
