"""What is done is what is on disk: shard files, their markers, and what they vouch for.

A shard's transcripts are published first, its overflow next, its metrics last: the metrics file is the
marker that the shard is done. The bytes of the transcripts depend on nothing but the work, so a second
writer of the same shard finds what it would have written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UnfinishedError
from pipeline.metrics import wer
from pipeline.metrics.shard import RunStamp, metrics_row, with_counts
from pipeline.output.copies import with_copies
from pipeline.output.files import (
    METRICS_FOLDER,
    metrics_name,
    overflow_name,
    parquet_bytes,
    parquet_table,
    read_tables,
    transcripts_name,
)
from pipeline.output.store import Store
from pipeline.schema import METRICS, PLAN, TRANSCRIPTS, table_of

MARKER = re.compile(METRICS_FOLDER + r"/shard-(?P<shard>\d{6,})\.parquet")
MARKERS_TOGETHER = 256  # a table of one row takes a hundred times its content
SCORING = {b"normaliser": wer.NORMALISER.encode()}


class ForeignMarker(UnfinishedError):
    """A marker vouches for another plan or other options; the message names the file."""


def commit_shard(store: Store, result: Mapping[str, Any], stamp: RunStamp) -> pa.Table:
    """Publish a row of `SHARD_RESULT`. Returns its marker: the one just written, or that was there first.

    Rows with a reference of their own are scored, and copies of its recordings get rows of their own.
    """
    shard_id, overflow = result["shard_id"], table_of(PLAN, result["overflow"])
    scored = with_counts(table_of(TRANSCRIPTS, result["transcripts"]), result["scorable"])
    transcripts = with_copies(scored, store, stamp.plan_hash)
    content = parquet_bytes(transcripts)
    if not store.publish(transcripts_name(shard_id), content):
        # Torn files never have this name, so what is there is a whole file of a writer that died before
        # its marker, or of one that is ahead of us. A marker vouches only for what it describes.
        content = store.read(transcripts_name(shard_id)) or content
        transcripts = parquet_table(content, TRANSCRIPTS)
    if overflow.num_rows:
        store.publish(overflow_name(shard_id), parquet_bytes(overflow))
    row = metrics_row(shard_id, result["attempt"], transcripts, result["measures"], stamp)
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


def committed(store: Store, fingerprint: str, plan_hash: str, *, known: pa.Table | None = None) -> pa.Table:
    """All markers of an output as one `METRICS` table, by shard. Raises `ForeignMarker`.

    known: what an earlier call gave, which is not read again where its markers are still there.
    """
    found = (MARKER.fullmatch(name) for name in store.names(METRICS_FOLDER))
    names = {int(one["shard"]): one[0] for one in found if one}
    known = METRICS.empty_table() if known is None else known
    there = known.filter(pc.is_in(known.column("shard_id"), pa.array(list(names), pa.int32())))
    new = sorted(names.keys() - set(there.column("shard_id").to_pylist()))
    unread = [names[shard] for shard in new]
    found_new, tables = zip(unread, read_tables(store, unread, METRICS), strict=True), [there]
    while some := list(islice(found_new, MARKERS_TOGETHER)):
        for name, marker in some:
            _check_marker(marker, name, fingerprint, plan_hash)
        tables.append(pa.concat_tables(marker for _, marker in some).combine_chunks())
    return pa.concat_tables(tables).combine_chunks().sort_by("shard_id")


def _check_marker(marker: pa.Table, name: str, fingerprint: str, plan_hash: str) -> None:
    found = (marker.column("fingerprint")[0].as_py(), marker.column("plan_hash")[0].as_py())
    if found != (fingerprint, plan_hash):
        raise ForeignMarker(f"{name}: is of another job (fingerprint, plan {found})")
