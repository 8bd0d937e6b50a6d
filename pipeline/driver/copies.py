"""Recordings of one content among those of a job: one is transcribed, and the others are its copies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from pipeline.planning import OF_RECORDING
from pipeline.schema import COPIES, table_of
from pipeline.sources.content import content_of, quick_of
from pipeline.sources.recording import Recording

NUM_READERS = 8  # files are small or far away: most of the time is waiting
BATCH_ROWS = 8192

log = logging.getLogger("earshard")


def split_copies(found: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The recordings to transcribe, and the copies of them as `COPIES`.

    found: as `planning.found_table` makes it. Of one content the first by id is transcribed. Files of equal
    size are compared by their ends, and where these are equal, by SHA-256.
    """
    groups = _equal(np.arange(found.num_rows), found.column("bytes").to_pylist())
    groups = [group for group in groups if found.column("bytes")[int(group[0])].as_py()]
    for name_of in (quick_of, content_of):
        indices = np.sort(np.concatenate(groups)) if groups else np.empty(0, np.int64)
        groups = _equal(indices, _names(found, indices, name_of))
    first = {int(copy): int(group[0]) for group in groups for copy in group[1:]}
    if not first:
        return found, COPIES.empty_table()
    log.info("copies of other recordings, not transcribed again (--duplicates transcribe): %d", len(first))
    kept = np.setdiff1d(np.arange(found.num_rows), list(first))
    return found.take(pa.array(kept)), _copies(found, first)


def _equal(indices: np.ndarray, names: Sequence[object]) -> list[np.ndarray]:
    """Groups of at least two indices that have one name, each in order; None is the name of none."""
    groups: dict[object, list[int]] = {}
    for index, name in zip(indices.tolist(), names, strict=True):
        if name is not None:
            groups.setdefault(name, []).append(index)
    return [np.array(group) for group in groups.values() if len(group) > 1]


def _names(
    found: pa.Table, indices: np.ndarray, name_of: Callable[[Recording], str | None]
) -> list[str | None]:
    with ThreadPoolExecutor(NUM_READERS) as pool:
        return [name for some in _recordings(found, indices) for name in pool.map(name_of, some)]


def _recordings(found: pa.Table, indices: np.ndarray) -> Iterator[list[Recording]]:
    columns = found.select(OF_RECORDING).take(pa.array(indices))
    for batch in columns.to_batches(max_chunksize=BATCH_ROWS):
        yield [Recording(**row) for row in batch.to_pylist()]


def _copies(found: pa.Table, first: dict[int, int]) -> pa.Table:
    """`COPIES` of some rows by index, each with the index of what it is a copy of."""
    ids = found.column("recording_id")
    rows = found.select([name for name in COPIES.names if name != "same_as"]).take(pa.array(list(first)))
    same = [ids[index].as_py() for index in first.values()]
    return table_of(
        COPIES, [row | {"same_as": name} for row, name in zip(rows.to_pylist(), same, strict=True)]
    )
