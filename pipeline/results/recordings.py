"""Recordings made whole again: the parts and channels of a committed output, joined in the order of time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.output import files
from pipeline.output.files import read_transcripts
from pipeline.output.store import existing_store
from pipeline.results import totals
from pipeline.schema import PLAN, TRANSCRIPTS


@dataclass(frozen=True, kw_only=True)
class WholeRecording:
    """One recording, whatever number of rows it has.

    It failed if any of its rows did: `text` is null then, and `segments` are those of the other rows. Each
    segment says its `channel`; times are seconds in the recording, `duration_s` is null where no part of it
    could be decoded.
    """

    recording_id: str
    uri: str
    status: str
    error_type: str | None
    error_message: str | None
    duration_s: float | None
    language: str | None
    language_probability: float | None
    text: str | None
    segments: tuple[dict[str, Any], ...]
    channels: tuple[int, ...]
    model: str


@dataclass(frozen=True)
class PlannedRecordings:
    """What is planned of an output so far: the rows of each recording, and its place in its file."""

    num_parts: dict[str, int]
    members: dict[str, str]


def read_planned(output: str) -> PlannedRecordings:
    """Count the parts of every recording, what ran over included. Raises `OutputError`."""
    store = existing_store(output)
    parts: defaultdict[str, set[int]] = defaultdict(set)
    members: dict[str, str] = {}
    for name in store.names("plan"):
        columns = files.parquet_table(store.read(name) or b"", PLAN).select(
            ["recording_id", "part", "member"]
        )
        for row in columns.to_pylist():
            parts[row["recording_id"]].add(row["part"])
            if row["member"] is not None:
                members[row["recording_id"]] = row["member"]
    return PlannedRecordings({recording_id: len(found) for recording_id, found in parts.items()}, members)


def read_joined(output: str, planned: PlannedRecordings) -> Iterator[WholeRecording]:
    """The recordings of an output whose planned parts are all there, each as soon as its last row is read.

    Raises `OutputError` if there is no output.
    """
    num_rows = Counter(_recording_ids(output))
    pending: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_transcripts(output):
        recording_id = row["recording_id"]
        pending[recording_id].append(row)
        if len(pending[recording_id]) == num_rows[recording_id]:
            rows = pending.pop(recording_id)
            if len({one["part"] for one in rows}) >= planned.num_parts.get(recording_id, 0):
                yield join_rows(rows)


def _recording_ids(output: str) -> Iterator[str]:
    store = existing_store(output)
    for name in store.names("transcripts"):
        table = files.parquet_table(store.read(name) or b"", TRANSCRIPTS)
        yield from table.column("recording_id").to_pylist()


def join_rows(rows: list[dict[str, Any]]) -> WholeRecording:
    """Join the rows of `TRANSCRIPTS` of one recording."""
    rows = sorted(rows, key=lambda row: (row["part"], row["channel"]))
    failed = next((row for row in rows if row["status"] == "failed"), None)
    spoken = next((row for row in rows if row["language"]), rows[0])
    return WholeRecording(
        recording_id=rows[0]["recording_id"],
        uri=rows[0]["uri"],
        status="failed" if failed else "ok",
        error_type=failed["error_type"] if failed else None,
        error_message=failed["error_message"] if failed else None,
        duration_s=_duration_s(rows),
        language=spoken["language"],
        language_probability=spoken["language_probability"],
        text=None if failed else _text(rows),
        segments=tuple(_segments(rows)),
        channels=tuple(sorted({row["channel"] for row in rows})),
        model=rows[0]["model"],
    )


def _text(rows: list[dict[str, Any]]) -> str:
    return rows[0]["text"] if len(rows) == 1 else totals.join_text(rows)


def _duration_s(rows: list[dict[str, Any]]) -> float | None:
    """The parts one after the other; the channels of a part last equally long."""
    parts: dict[int, float] = {}
    for row in rows:
        if row["duration_s"] is not None:
            parts[row["part"]] = max(parts.get(row["part"], 0.0), row["duration_s"])
    return sum(parts.values()) if parts else None


def _segments(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [
        {**segment, "part": row["part"], "channel": row["channel"]}
        for row in rows
        for segment in row["segments"] or []
    ]
    found.sort(key=lambda segment: (segment["start_s"], segment["end_s"], segment["channel"]))
    return [{**segment, "id": number} for number, segment in enumerate(found)]
