"""Recordings made whole again: the parts and channels of a committed output, joined in the order of time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.engine.languages import join_texts
from pipeline.output.copies import read_copies
from pipeline.output.files import PLAN_FOLDER, existing_store, read_tables, read_transcripts
from pipeline.output.store import Store
from pipeline.results.faults import Faults
from pipeline.schema import PLAN, TRANSCRIPTS

PLANNED = pa.schema([PLAN.field(name) for name in ("recording_id", "part", "member")])
IDS = pa.schema([TRANSCRIPTS.field("recording_id")])


@dataclass(frozen=True, kw_only=True)
class WholeRecording:
    """One recording, whatever number of rows it has.

    It failed if any of its rows did: `text` is null then, and `segments` are those of the other rows. Each
    segment says its `channel` and the `language` spoken in it; times are seconds in the recording,
    `duration_s` is null where no part of it could be decoded. `language` is that of the rows with most
    speech, `text_language` that of their text: English where it was translated.
    """

    recording_id: str
    uri: str
    status: str
    error_type: str | None
    error_message: str | None
    duration_s: float | None
    language: str | None
    text_language: str | None
    language_probability: float | None
    text: str | None
    segments: tuple[dict[str, Any], ...]
    channels: tuple[int, ...]
    model: str
    reference: str | None
    channel_names: tuple[str, ...] = ()

    @property
    def speakers(self) -> dict[int, str]:
        """What the channels are called; empty where there is one."""
        if len(self.channels) < 2:
            return {}
        names = dict(enumerate(self.channel_names))
        return {channel: names.get(channel, f"channel {channel}") for channel in self.channels}

    @property
    def is_translated(self) -> bool:
        """Whether the text is in another language than was spoken."""
        return self.text_language != self.language


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
    for table in read_tables(store, store.names(PLAN_FOLDER), PLANNED):
        for row in table.to_pylist():
            parts[row["recording_id"]].add(row["part"])
            if row["member"] is not None:
                members[row["recording_id"]] = row["member"]
    for copy in _copies_of(store, parts):
        parts[copy["recording_id"]] = parts[copy["same_as"]]
        if copy["member"] is not None:
            members[copy["recording_id"]] = copy["member"]
    return PlannedRecordings({recording_id: len(found) for recording_id, found in parts.items()}, members)


def read_plan_rows(output: str) -> dict[str, dict[str, Any]]:
    """The row of PLAN of the first part of every recording, by recording_id. Raises `OutputError`."""
    store = existing_store(output)
    rows = {
        row["recording_id"]: row
        for table in read_tables(store, store.names(PLAN_FOLDER), PLAN)
        for row in table.to_pylist()
        if row["part"] == 0
    }
    return rows | {copy["recording_id"]: rows[copy["same_as"]] | copy for copy in _copies_of(store, rows)}


def _copies_of(store: Store, planned: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The copies of what is planned: somebody may have taken recordings out of an output's plan."""
    return [copy for copy in read_copies(store) if copy["same_as"] in planned]


def read_joined(output: str, planned: PlannedRecordings, faults: Faults) -> Iterator[WholeRecording]:
    """The recordings of an output whose planned parts are all there, each as soon as its last row is read.

    What cannot be read or joined is one of the `faults`. Raises `OutputError` if there is no output.
    """
    ids = read_transcripts(output, schema=IDS, unreadable=lambda *_: None)
    num_rows = Counter(row["recording_id"] for row in ids)
    pending: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_transcripts(output, unreadable=faults.note):
        recording_id = row["recording_id"]
        pending[recording_id].append(row)
        if len(pending[recording_id]) == num_rows[recording_id]:
            rows = pending.pop(recording_id)
            if len({one["part"] for one in rows}) >= planned.num_parts.get(recording_id, 0):
                yield from _joined(recording_id, rows, faults)


def _joined(recording_id: str, rows: list[dict[str, Any]], faults: Faults) -> list[WholeRecording]:
    with faults.named(recording_id):
        return [join_rows(rows)]
    return []


def join_rows(rows: list[dict[str, Any]]) -> WholeRecording:
    """Join the rows of `TRANSCRIPTS` of one recording."""
    rows = sorted(rows, key=lambda row: (row["part"], row["channel"]))
    failed = next((row for row in rows if row["status"] == "failed"), None)
    spoken = _with_most_speech(rows)
    return WholeRecording(
        recording_id=rows[0]["recording_id"],
        uri=rows[0]["uri"],
        status="failed" if failed else "ok",
        error_type=failed["error_type"] if failed else None,
        error_message=failed["error_message"] if failed else None,
        duration_s=_duration_s(rows),
        language=spoken["language"],
        text_language=_text_language(spoken),
        language_probability=spoken["language_probability"],
        text=None if failed else _text(rows),
        segments=tuple(_segments(rows)),
        channels=tuple(sorted({row["channel"] for row in rows})),
        model=rows[0]["model"],
        reference=rows[0]["reference"],
    )


def in_languages(recording: WholeRecording, languages: Collection[str]) -> WholeRecording | None:
    """A recording with the segments in some languages alone; None where it has no such segment.

    Its `language` is then the one that its segments are in for most of the time.
    """
    kept = [segment for segment in recording.segments if segment["language"] in languages]
    if not kept:
        return None
    seconds: defaultdict[str, float] = defaultdict(float)
    for segment in kept:
        seconds[segment["language"]] += segment["end_s"] - segment["start_s"]
    spoken = max(seconds, key=lambda language: seconds[language])
    written = recording.text_language if recording.is_translated else None
    text = join_texts((segment["text"], written or segment["language"]) for segment in kept)
    return replace(
        recording,
        segments=tuple({**segment, "id": number} for number, segment in enumerate(kept)),
        language=spoken,
        text_language=written or spoken,
        language_probability=recording.language_probability if spoken == recording.language else None,
        text=None if recording.text is None else text,
    )


def _with_most_speech(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the language that is spoken longest that has most of it; any where none is known."""
    seconds: defaultdict[str | None, float] = defaultdict(float)
    for row in rows:
        if row["language"]:
            seconds[row["language"]] += row["speech_s"] or 0.0

    def rank(row: Mapping[str, Any]) -> tuple[bool, float, float]:
        return bool(row["language"]), seconds[row["language"]], row["speech_s"] or 0.0

    return max(rows, key=rank)


def _text_language(row: Mapping[str, Any]) -> str | None:
    return row["text_language"] or row["language"]


def _text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of parts one after the other; of channels, segment by segment in the order of time."""
    if len({row["channel"] for row in rows}) == 1:
        return join_texts((row["text"], _text_language(row)) for row in rows)
    said = [(one, _text_language(row)) for row in rows for one in row["segments"] or []]
    said.sort(key=lambda pair: pair[0]["start_s"])
    return join_texts((segment["text"], language) for segment, language in said)


def _duration_s(rows: list[dict[str, Any]]) -> float | None:
    """The parts one after the other; the channels of a part last equally long."""
    parts: dict[int, float] = {}
    for row in rows:
        if row["duration_s"] is not None:
            parts[row["part"]] = max(parts.get(row["part"], 0.0), row["duration_s"])
    return sum(parts.values()) if parts else None


def _segments(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [
        {
            **segment,
            "part": row["part"],
            "channel": row["channel"],
            "language": segment.get("language") or row["language"],
        }
        for row in rows
        for segment in row["segments"] or []
    ]
    found.sort(key=lambda segment: (segment["start_s"], segment["end_s"], segment["channel"]))
    return [{**segment, "id": number} for number, segment in enumerate(found)]
