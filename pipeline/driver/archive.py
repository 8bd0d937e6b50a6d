"""An archive that grows: each run transcribes what is new or changed, as a whole output of its own.

    ARCHIVE/started/2026-03-01.json     written before a run does anything; its name is the run's
    ARCHIVE/runs/2026-03-01/            the output of the run
    ARCHIVE/ledger/2026-03-01.parquet   what the run has done; written once, when every row exists

A recording is known by its content as well: another name or time stamp of it is entered into the ledger, and
not transcribed again. A run without a ledger was stopped; the next call resumes it first.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any

from pipeline.config import JobRequest, OptionError, RunOptions
from pipeline.driver.job import JobMismatch, run_job
from pipeline.driver.lock import DriverLock
from pipeline.driver.run_record import new_run_id
from pipeline.output import files
from pipeline.output.files import JOB, read_transcripts
from pipeline.output.store import Store, open_store, store_at
from pipeline.results.recordings import read_plan_rows
from pipeline.schema import ARCHIVE_LEDGER, table_of
from pipeline.sources.content import content_of, contents_beside, quick_of
from pipeline.sources.listing import list_recordings
from pipeline.sources.recording import MISSING, PASSING, Recording
from pipeline.sources.references import read_references

log = logging.getLogger("earshard")

Version = tuple[str, str | None, str]  # recording_id, member, identity


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the source holds that no run has done."""

    num_listed: int
    num_skipped: int
    num_passed_over: int
    new: tuple[Recording, ...]
    changed: tuple[Recording, ...]  # done before, as another version or in vain
    same: tuple[dict[str, Any], ...]  # rows of `ARCHIVE_LEDGER`: done under another name or time stamp
    unfinished_run: str | None

    @property
    def pending(self) -> tuple[Recording, ...]:
        """What the next run transcribes."""
        return self.new + self.changed


@dataclass(frozen=True)
class ArchiveUpdate:
    """What one call did: a survey, and the totals of the runs that it finished by their names."""

    survey: Survey
    runs: dict[str, dict[str, Any]]


def survey_source(store: Store, request: JobRequest, *, retry_failed: bool = False) -> Survey:
    """Compare the source with the ledger, and write nothing.

    With `retry_failed` what failed counts as not done. Raises `InputError`.
    """
    ledger = _Ledger.read(store, retry_failed)
    references = read_references(request.references) if request.references else None
    listing = list_recordings(
        request.inputs, all_files=request.all_files, references=references, output=str(store.root)
    )
    num_listed = 0
    new: list[Recording] = []
    changed: list[Recording] = []
    same: list[dict[str, Any]] = []
    for recording in listing.recordings:
        num_listed += 1
        if (recording.recording_id, recording.member, recording.identity) in ledger.done:
            continue
        row = ledger.same_content(recording) if request.duplicates == "once" else None
        if row is not None:
            same.append(row)
        else:
            (changed if recording.recording_id in ledger.known else new).append(recording)
    return Survey(
        num_listed=num_listed,
        num_skipped=len(listing.skipped),
        num_passed_over=len(listing.passed_over),
        new=_sorted(new),
        changed=_sorted(changed),
        same=tuple(same),
        unfinished_run=unfinished_run(store),
    )


def _sorted(recordings: list[Recording]) -> tuple[Recording, ...]:
    return tuple(sorted(recordings, key=lambda recording: recording.recording_id))


@dataclass(frozen=True, kw_only=True)
class _Ledger:
    """What all runs have done: versions that need no run, ids, rows by content; sizes and ends of these."""

    done: set[Version]
    known: set[str]
    by_content: dict[str, dict[str, Any]]
    sizes: set[int]
    ends: set[str]

    @classmethod
    def read(cls, store: Store, retry_failed: bool) -> _Ledger:
        ledger = cls(done=set(), known=set(), by_content={}, sizes=set(), ends=set())
        for table in files.read_tables(store, store.names("ledger"), ARCHIVE_LEDGER):
            for row in table.to_pylist():
                ledger.known.add(row["recording_id"])
                if row["status"] == "ok" or not (retry_failed or _is_passing(row)):
                    ledger.done.add((row["recording_id"], row["member"], row["identity"]))
                    if row["content"] is not None:
                        ledger.by_content.setdefault(row["content"], row)
                        ledger.sizes.add(row["bytes"])
                        ledger.ends.add(row["content"].partition(":")[0])
        return ledger

    def same_content(self, recording: Recording) -> dict[str, Any] | None:
        """The ledger's row for a recording whose content was done before; its bytes are read to tell."""
        may_be = recording.bytes in self.sizes and quick_of(recording) in self.ends
        content = content_of(recording) if may_be else None
        before = self.by_content.get(content) if content is not None else None
        if before is None:
            return None
        told = {name: getattr(recording, name) for name in ("recording_id", "member", "identity")}
        first = before["same_as"] or before["recording_id"]
        return before | told | {"same_as": None if first == recording.recording_id else first}


def _is_passing(row: dict[str, Any]) -> bool:
    return row["error_type"] in PASSING and row["identity"] != MISSING


def unfinished_run(store: Store) -> str | None:
    """The run that was started and has no ledger; there is at most one."""
    finished = {_stem(name) for name in store.names("ledger")}
    return next((run for run in map(_stem, store.names("started")) if run not in finished), None)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def read_survey(archive: str, request: JobRequest, *, retry_failed: bool) -> Survey:
    """What `update` would find to do. Raises `InputError`."""
    return survey_source(store_at(archive), request, retry_failed=retry_failed)


def update_archive(
    archive: str, request: JobRequest, run: RunOptions, *, day: str, retry_failed: bool = False
) -> ArchiveUpdate:
    """Finish the run that was stopped, if there is one, and transcribe what is new or changed.

    Args:
        archive: its folder or URL; made if need be.
        request: the source and the options; its output is not looked at.
        run: how it is carried out.
        day: what a new run is called, if no run is called so yet.
        retry_failed: transcribe again what failed.

    Raises:
        OutputBusy: another call works on the archive.
        OptionError: the run that was stopped began with other options.
        and what `run_job` raises; the same call resumes it.
    """
    store = open_store(archive)
    runs: dict[str, dict[str, Any]] = {}
    with DriverLock(store, new_run_id()):
        stopped = unfinished_run(store)
        if stopped is not None and store.read(f"runs/{stopped}/{JOB}") is not None:
            log.info("%s: resuming a run that was stopped", stopped)
            runs[stopped] = _carry_out(store, stopped, replace(request, recordings=()), run)
            stopped = None
        found = survey_source(store, request, retry_failed=retry_failed)
        if found.pending or found.same:
            name = stopped or _start(store, day)
            log.info("%s: %d new, %d changed", name, len(found.new), len(found.changed))
            if found.same:
                log.info("%d of known content, under another name or time stamp", len(found.same))
        if found.pending:
            asked = replace(request, recordings=found.pending)
            runs[name] = _carry_out(store, name, asked, run, found.same)
        elif found.same:
            _enter(store, name, found.same)
    return ArchiveUpdate(found, runs)


def _start(store: Store, day: str) -> str:
    """The name of a new run, taken before anything is done under it."""
    for number in count(1):
        name = day if number == 1 else f"{day}-{number}"
        if store.publish(f"started/{name}.json", json.dumps({"run": name}).encode()):
            return name
    raise AssertionError("numbers do not end")


def _carry_out(
    store: Store, name: str, request: JobRequest, run: RunOptions, same: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Run a job to its end and enter what it has done into the ledger, with `same`. Returns its totals."""
    output = f"{store.root}/runs/{name}"
    try:
        with contents_beside(request.recordings or ()) as contents:
            totals = run_job(replace(request, output=output), run)
            rows = list(_ledger_rows(output, name, contents.result()))
    except JobMismatch as error:
        raise OptionError(f"a stopped run is resumed with the options it began with: {error}") from None
    _enter(store, name, [*rows, *same])
    return totals


def _enter(store: Store, name: str, rows: Sequence[dict[str, Any]]) -> None:
    store.publish(f"ledger/{name}.parquet", files.parquet_bytes(table_of(ARCHIVE_LEDGER, rows)))


def _ledger_rows(output: str, run: str, contents: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    """A row of `ARCHIVE_LEDGER` for every recording of a finished run; failed if any part of it did."""
    errors = {
        row["recording_id"]: row["error_type"]
        for row in read_transcripts(output)
        if row["status"] == "failed"
    }
    for name, row in read_plan_rows(output).items():
        yield {
            **{field: row[field] for field in ("recording_id", "member", "identity", "bytes")},
            "status": "failed" if name in errors else "ok",
            "error_type": errors.get(name),
            "run": run,
            "content": contents[name] if name in contents else content_of(_planned(row)),
            "same_as": None,
        }


def _planned(row: Mapping[str, Any]) -> Recording:
    """The recording that a row of the plan was made of."""
    return Recording(**{field.name: row[field.name] for field in fields(Recording) if field.name in row})
