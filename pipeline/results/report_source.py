"""What the files of one output say: its shards, its runs, its failures and what was scored."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.adaptive.summary import summarise_policy
from pipeline.metrics import cost, wer
from pipeline.output import commit
from pipeline.output.files import JOB, RUNS_FOLDER, existing_store, read_transcripts
from pipeline.output.store import Store
from pipeline.results.breakdown import SliceFacts, folder_of
from pipeline.results.faults import Faults
from pipeline.results.recordings import WholeRecording, join_rows
from pipeline.schema import COUNTS

MAX_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a job, one that was killed or did nothing too. `day` is the day of its start, in UTC."""

    output: str
    run_id: str
    state: str
    day: str
    model: str
    wall_s: float
    gpu_s_held: float
    usd_per_gpu_hour: float | None

    @property
    def name(self) -> str:
        """The run among those of several outputs."""
        return run_name(self.output, self.run_id)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """All failed rows of one cause."""

    error_type: str
    num_rows: int
    examples: tuple[str, ...]  # at most `MAX_EXAMPLES`

    def __add__(self, other: Failure) -> Failure:
        examples = sorted((*self.examples, *other.examples))[:MAX_EXAMPLES]
        return Failure(
            error_type=self.error_type, num_rows=self.num_rows + other.num_rows, examples=tuple(examples)
        )


@dataclass(frozen=True)
class RecordingCounts:
    """The word counts, language and folder of one recording, and the marker of its first row's shard."""

    marker: dict[str, Any]
    counts: wer.Counts
    language: str | None
    folder: str


@dataclass(frozen=True, kw_only=True)
class OutputFacts:
    """What the files of one output say. `scored` has one entry for each recording that has a reference."""

    path: str
    markers: tuple[dict[str, Any], ...]  # rows of METRICS
    runs: tuple[Run, ...]
    scored: tuple[RecordingCounts, ...]
    num_recordings: int
    num_failed: int
    failures: tuple[Failure, ...]
    languages: dict[str, SliceFacts]
    folders: dict[str, SliceFacts]
    adaptive: dict[str, Any] | None  # see `adaptive.summary`
    num_skipped: int = 0  # files without a media extension, when the job was planned
    num_passed_over: int = 0  # what systems leave behind, and the output itself
    num_copies: int = 0  # recordings whose content is that of others

    def total(self, name: str) -> float:
        """The sum of a column of METRICS over all shards; null counts as 0."""
        return math.fsum(marker[name] or 0 for marker in self.markers)


def run_name(output: str, run_id: str) -> str:
    """A run among those of several outputs."""
    return f"{Path(output).name}/{run_id}"


def read_output(
    path: str,
    usd_per_gpu_hour: float | None = None,
    faults: Faults | None = None,
    *,
    known: pa.Table | None = None,
) -> OutputFacts:
    """Read an output, finished or not.

    `usd_per_gpu_hour` is the price to count with; None: the one its own shards were counted with. What cannot
    be read or scored is one of the `faults`. `known` are markers that were read already. Raises `OutputError`
    if there is no output, and `ForeignMarker`.
    """
    faults = faults or Faults()
    store = existing_store(path)
    job = json.loads(store.read(JOB) or b"{}")
    markers = commit.committed(store, job["fingerprint"], job["plan_hash"], known=known).to_pylist()
    price = usd_per_gpu_hour if usd_per_gpu_hour is not None else _price(markers)
    for marker in markers:
        marker["output"] = path
        if usd_per_gpu_hour is not None:
            marker["cost_usd"] = cost.cost_usd(marker["device_s"], usd_per_gpu_hour, marker["device"])
    by_shard = {marker["shard_id"]: marker for marker in markers}
    rows = _Rows(faults)
    for row in read_transcripts(path, unreadable=faults.note):
        rows.add(row)
    return OutputFacts(
        path=path,
        markers=tuple(markers),
        runs=tuple(_runs(store, path, job["options"]["model"], price)),
        scored=tuple(
            RecordingCounts(by_shard[shard_id], counts, language, folder)
            for shard_id, counts, language, folder in rows.all_counts()
            if shard_id in by_shard
        ),
        num_recordings=len(rows.failed),
        num_failed=sum(rows.failed.values()),
        failures=tuple(rows.failures.values()),
        languages=dict(rows.languages),
        folders=dict(rows.folders),
        adaptive=summarise_policy(store, markers, job["options"].get("wer_budget")),
        **{name: job.get(name, 0) for name in ("num_skipped", "num_passed_over", "num_copies")},
    )


class _Rows:
    """What is kept of the rows of an output while they are read once."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.failed: dict[str, bool] = {}  # by recording_id
        self.failures: dict[str, Failure] = {}  # by cause
        self.languages: defaultdict[str, SliceFacts] = defaultdict(SliceFacts)
        self.folders: defaultdict[str, SliceFacts] = defaultdict(SliceFacts)
        self._counts: list[tuple[int, wer.Counts, str | None, str]] = []
        self._joint: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def add(self, row: dict[str, Any]) -> None:
        """Take a row of `TRANSCRIPTS` in."""
        recording_id, is_failed = row["recording_id"], row["status"] == "failed"
        self.failed[recording_id] = self.failed.get(recording_id, False) or is_failed
        if is_failed:
            cause = row["error_type"]
            one = Failure(error_type=cause, num_rows=1, examples=(f"{recording_id}: {row['error_message']}",))
            self.failures[cause] = one + self.failures[cause] if cause in self.failures else one
        self._add_languages(row)
        self._add_folder(row, is_failed)
        if row["num_hits"] is not None:
            counts = wer.Counts(**{name: row[name] for name in COUNTS})
            self._counts.append((row["shard_id"], counts, row["language"], folder_of(recording_id)))
        elif row["reference"] is not None:
            self._joint[recording_id].append(row)

    def _add_languages(self, row: dict[str, Any]) -> None:
        seconds = {one["language"]: one["speech_s"] for one in row["languages"] or ()}
        if not seconds and row["language"]:  # an output of before
            seconds = {row["language"]: row["speech_s"] or 0.0}
        for language, speech_s in seconds.items():
            facts = self.languages[language]
            facts.recordings.add(row["recording_id"])
            facts.speech_s += speech_s if row["same_as"] is None else 0.0
        for segment in row["segments"] or ():
            if language := segment.get("language") or row["language"]:
                self.languages[language].add_segment(segment)

    def _add_folder(self, row: dict[str, Any], is_failed: bool) -> None:
        facts = self.folders[folder_of(row["recording_id"])]
        facts.recordings.add(row["recording_id"])
        if is_failed:
            facts.failed.add(row["recording_id"])
        facts.speech_s += (row["speech_s"] or 0.0) if row["same_as"] is None else 0.0
        for segment in row["segments"] or ():
            facts.add_segment(segment)

    def all_counts(self) -> Iterator[tuple[int, wer.Counts, str | None, str]]:
        """Shard, word counts, language and folder of every recording that was scored.

        Several rows of one are scored joined.
        """
        yield from self._counts
        for recording_id, rows in self._joint.items():
            counts, whole = None, None
            with self._faults.named(recording_id):
                whole = join_rows(rows)
                counts = _joint_counts(whole)
            if counts is not None and whole is not None:
                first = min(row["shard_id"] for row in rows)
                yield first, counts, whole.language, folder_of(recording_id)


def _joint_counts(whole: WholeRecording) -> wer.Counts | None:
    if whole.text is None or whole.reference is None:
        return None
    return wer.count_errors(whole.reference, whole.text, whole.text_language)


def _price(markers: Sequence[dict[str, Any]]) -> float | None:
    """Dollars per GPU-hour that the latest shard with a cost was counted with."""
    paid = [marker for marker in markers if marker["cost_usd"] is not None and marker["device_s"] > 0]
    if not paid:
        return None
    latest = max(paid, key=lambda marker: marker["finished_at"])
    return latest["cost_usd"] / latest["device_s"] * cost.SECONDS_PER_HOUR


def _runs(store: Store, path: str, model: str, price: float | None) -> Iterator[Run]:
    for name in store.names(RUNS_FOLDER):
        record = json.loads(store.read(name) or b"{}")
        yield Run(
            output=path,
            run_id=record["run_id"],
            state=record["state"],
            day=record["started_at"][:10],
            model=model,
            wall_s=record["wall_s"],
            gpu_s_held=record["gpu_seconds_held"],
            usd_per_gpu_hour=price,
        )
