"""Copies of recordings: rows of their own beside those of the recording that was transcribed."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import Any

import pyarrow as pa

from pipeline.output.files import COPIES_NAME, parquet_table
from pipeline.output.store import Store
from pipeline.schema import COPIES, COUNTS, TRANSCRIPTS, table_of


def read_copies(store: Store) -> list[dict[str, Any]]:
    """The rows of `COPIES` of an output; none where nothing is there twice."""
    content = store.read(COPIES_NAME)
    return parquet_table(content, COPIES).to_pylist() if content is not None else []


def with_copies(transcripts: pa.Table, store: Store, plan_hash: str) -> pa.Table:
    """Rows of `TRANSCRIPTS`, with one more for every copy of each; a copy has its own reference.

    A copy whose reference is another has no counts: it is scored where recordings are joined.
    """
    copies = _by_original(_Key(store, plan_hash))
    ids = transcripts.column("recording_id").to_pylist()
    if copies.keys().isdisjoint(ids):
        return transcripts
    rows = []
    for row in transcripts.to_pylist():
        rows.append(row)
        for copy in copies.get(row["recording_id"], ()):
            own = {name: copy[name] for name in ("recording_id", "uri", "reference", "same_as")}
            counts = {} if copy["reference"] == row["reference"] else dict.fromkeys(COUNTS)
            rows.append(row | own | counts)
    return table_of(TRANSCRIPTS, rows)


class _Key:
    """An output and its plan, for the cache: what was planned there does not change."""

    def __init__(self, store: Store, plan_hash: str) -> None:
        self.store, self._name = store, (str(store.root), plan_hash)

    def __hash__(self) -> int:
        return hash(self._name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._name == other._name


@lru_cache(maxsize=1)
def _by_original(key: _Key) -> dict[str, list[dict[str, Any]]]:
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for copy in read_copies(key.store):
        found[copy["same_as"]].append(copy)
    return dict(found)
