"""What was tried: a file per attempt, written before the attempt, so that no crash goes uncounted.

The first two attempts of a shard run it whole. The third runs it row by row of the plan: each row is a
unit of its own, its result is kept as a piece, and a row whose process dies again becomes a failed row.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.output.files import parquet_bytes, parquet_table, shard_name
from pipeline.output.store import Store
from pipeline.schema import MEASURES, SHARD_RESULT, TRANSCRIPTS, table_of

MARKS = "_tmp/attempts"
EXCUSED = "_tmp/excused"
PIECES = "_tmp/pieces"
WHOLE_ATTEMPTS = 2
MAX_ATTEMPTS = 3
MAX_EXCUSED = 3  # a recording that takes its node with it is not tried for ever


def shard_unit(shard_id: int) -> str:
    """The name of a whole shard as a unit of work."""
    return shard_name(shard_id)


def row_unit(shard_id: int, recording_id: str, part: int) -> str:
    """The name of one row of the plan as a unit of work."""
    digest = hashlib.sha256(f"{recording_id}\0{part}".encode()).hexdigest()[:16]
    return f"{shard_unit(shard_id)}-{digest}"


def shard_of(unit: str) -> str:
    """The shard (as a unit) that a unit is, or is a row of."""
    return unit[: len(shard_unit(0))]


def unit_of(shard_id: int, attempt: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """The unit that an attempt at these plan rows (or at what was read of them) works on."""
    if attempt <= WHOLE_ATTEMPTS:
        return shard_unit(shard_id)
    return row_unit(shard_id, rows[0]["recording_id"], rows[0]["part"])


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What an attempt that did not come back left: its node ("" where unknown), its exception or ""."""

    node: str
    exception: str


@contextmanager
def marked(store: Store, unit: str, round_id: str, node: str = "") -> Iterator[None]:
    """Mark a unit while a stage works on it; the mark stays if the stage does not come back.

    An exception leaves the mark too, with its message in it. A unit that only waits carries no mark, so
    that the death of its neighbour in the same process does not count against it.
    """
    name = f"{MARKS}/{unit}.{round_id}"
    store.replace(name, _mark(node))
    try:
        yield
    except Exception as error:
        store.replace(name, _mark(node, f"{type(error).__name__}: {error}"))
        raise
    store.delete(name)


def _mark(node: str, exception: str = "") -> bytes:
    return json.dumps({"node": node, "exception": exception}).encode()


def count_marks(store: Store) -> Counter[str]:
    """How often each unit was attempted, in all runs."""
    return Counter(name.removeprefix(f"{MARKS}/").partition(".")[0] for name in store.names(MARKS))


def count_excused(store: Store) -> int:
    """How many attempts do not count because their node was lost."""
    return len(store.names(EXCUSED))


def marks_left_in(store: Store, round_id: str) -> dict[str, Lost]:
    """The units whose attempt in a round (that is over) did not come back."""
    suffix = f".{round_id}"
    found = {}
    for name in store.names(MARKS):
        if name.endswith(suffix):
            mark = json.loads(store.read(name) or _mark(""))
            found[name.removeprefix(f"{MARKS}/").removesuffix(suffix)] = Lost(**mark)
    return found


def excuse(store: Store, unit: str, round_id: str) -> bool:
    """Take back the mark of a unit whose node was lost; False if that happened to it too often."""
    if sum(name.startswith(f"{EXCUSED}/{unit}.") for name in store.names(EXCUSED)) >= MAX_EXCUSED:
        return False
    store.replace(f"{EXCUSED}/{unit}.{round_id}", b"")
    store.delete(f"{MARKS}/{unit}.{round_id}")
    return True


def forget_run(store: Store, run_id: str) -> None:
    """Remove the marks of a run that was stopped on purpose: nobody's fault."""
    for name in store.names(MARKS):
        if name.partition(".")[2].startswith(run_id):
            store.delete(name)


def forget_shard(store: Store, shard_id: int) -> None:
    """Remove what a committed shard no longer needs."""
    unit = shard_unit(shard_id)
    for folder in (MARKS, PIECES, EXCUSED):
        for name in store.names(folder):
            if name.startswith(f"{folder}/{unit}"):
                store.delete(name)


def keep_piece(store: Store, unit: str, result: pa.Table) -> None:
    """Keep the `SHARD_RESULT` of one row of the plan until its shard is whole."""
    store.publish(f"{PIECES}/{unit}.parquet", parquet_bytes(result))


def read_piece(store: Store, unit: str) -> pa.Table | None:
    """The `SHARD_RESULT` of one row of the plan; None if it was not done."""
    content = store.read(f"{PIECES}/{unit}.parquet")
    return parquet_table(content, SHARD_RESULT) if content is not None else None


def has_pieces(store: Store) -> set[str]:
    """The shards (as units) of which pieces are kept."""
    return {shard_of(name.removeprefix(f"{PIECES}/")) for name in store.names(PIECES)}


def crashed_row(plan_row: Mapping[str, Any], model: str, exception: str) -> dict[str, Any]:
    """The failed row of `TRANSCRIPTS` for a plan row that no attempt came back from."""
    cause = exception or "its process died or went past its deadline"
    values = {
        **plan_row,
        "channel": 0,
        "status": "failed",
        "error_type": "internal_error" if exception else "crashed",
        "error_message": f"{plan_row['recording_id']}: failed {MAX_ATTEMPTS} times, the last time: {cause}",
        "partial": False,
        "model": model,
        "duration_s": None,
    }
    return {name: values.get(name) for name in TRANSCRIPTS.names}


def finished_piece(
    shard_id: int,
    transcripts: list[dict[str, Any]],
    measures: Mapping[str, Any],
    overflow: list[dict[str, Any]],
) -> pa.Table:
    """Rows that are done and scored, as the piece of a shard that is taken apart."""
    row = {
        "shard_id": shard_id,
        "attempt": MAX_ATTEMPTS,
        "transcripts": transcripts,
        "scorable": [False] * len(transcripts),
        "measures": {name: measures[name] for name in MEASURES},
        "overflow": overflow,
    }
    return table_of(SHARD_RESULT, [row])
