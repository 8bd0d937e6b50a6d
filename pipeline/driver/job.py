"""A job from its request to its totals: resume, plan, rounds until nothing is missing, report."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from pipeline import __version__, planning
from pipeline.adaptive.files import FOLDER
from pipeline.config import NO_OPTIONS, JobOptions, JobRequest, OptionError, RunOptions
from pipeline.dataflow.workers import Workers
from pipeline.driver.copies import split_copies
from pipeline.driver.lock import DriverLock
from pipeline.driver.model import ENGINE_VERSION, check_manifest, load_engine, resolve_options
from pipeline.driver.progress import JobProgress
from pipeline.driver.rounds import JobRounds, open_rounds
from pipeline.driver.run_record import RunRecord, new_run_id, total_wall_s
from pipeline.engine.model.snapshot import BUNDLED
from pipeline.longform.transcribe import Transcriber
from pipeline.metrics import shard
from pipeline.output import attempts, files
from pipeline.output.files import JOB, METRICS_FOLDER, TRANSCRIPTS_FOLDER, plan_name
from pipeline.output.state import OutputState, WorkUnit
from pipeline.output.store import Store, open_store
from pipeline.results.report_source import read_output
from pipeline.results.totals import SUCCESS, job_totals, read_totals, write_totals
from pipeline.schema import COPIES
from pipeline.sources.listing import list_recordings
from pipeline.sources.locations import canonical_input
from pipeline.sources.recording import Listing
from pipeline.sources.references import References, read_references
from pipeline.wording import counted

PAGE = "report.html"
NAMES_SHOWN = 5
VERSIONS = ("ray", "torch", "transformers", "pyarrow", "soundfile", "av", "soxr", "silero-vad", "jiwer")
# Makes the engine inside the actor that owns it.
Load = Callable[[JobOptions, RunOptions, Workers], Transcriber]
# Where an output holds what a model said.
RESULTS = (METRICS_FOLDER, TRANSCRIPTS_FOLDER, FOLDER, attempts.PIECES)
log = logging.getLogger("earshard")


class JobMismatch(OptionError):
    """The output belongs to a job with other inputs or options; the message names what differs."""


def run_job(request: JobRequest, run: RunOptions, *, load: Load | None = None) -> dict[str, Any]:
    """Carry a job out, or resume it, and return its totals (see `totals.job_totals`).

    load: makes the engine inside an actor; None: the job's model. A benchmark gives another.

    Raises:
        OptionError, InputError, OutputError, ModelNotFound: the request cannot be carried out.
        JobMismatch: the output is of another job.
        OutputBusy: another driver works on it.
        Unfinished: rows are missing although every round was tried.
    """
    store = open_store(request.output)
    stored = _stored_job(store)
    options = resolve_options(request, run, stored)
    if stored is not None:
        _check_same_job(store, stored, request, options)
    totals = read_totals(store) if stored is not None else None
    if totals is not None and not (run.retry_failed and totals["num_failed"]):
        log.info("%s: complete, nothing to do", store.root)
        return totals
    if options.model == BUNDLED:
        log.warning("--model %s knows nothing but the synthetic language of the bundled speech", BUNDLED)
    run_id = new_run_id()
    with DriverLock(store, run_id):
        with RunRecord(store, run_id) as record:
            job = _open_plan(store, request, options)
            stamp = shard.RunStamp(
                run_id=run_id,
                fingerprint=job["fingerprint"],
                plan_hash=job["plan_hash"],
                gpu_hour_usd=run.gpu_hour_usd,
            )
            state = OutputState(store, stamp, shard_hours=options.shard_hours)
            if run.retry_failed:
                _reopen_failed(state)
            state.commit_pieces({}, options.model)  # whole since a run that was killed before it could
            state.reload()
            if state.units():
                _work_off(state, request, options, run, record, load or load_engine)
            state.check_rows()
        return _finish(state)


def _open_plan(store: Store, request: JobRequest, options: JobOptions) -> Mapping[str, Any]:
    """The stored job whose plan is carried out, or a new one.

    Raises `JobMismatch`: another driver may have been first.
    """
    stored = _stored_job(store)
    if stored is None:
        return _make_plan(store, request, options)
    _check_same_job(store, stored, request, options)
    if stored["options"]["model_revision"] != options.model_revision:
        log.info("%s: the weights changed before anything was transcribed; taking those of now", store.root)
        stored |= {"options": options.as_dict(), "fingerprint": options.fingerprint()}
        _store_job(store, stored)
    if (older := options.engine_version) != ENGINE_VERSION:
        log.info(
            "%s: what engine %s has done stays, engine %s does the rest", store.root, older, ENGINE_VERSION
        )
    log.info("%s: resuming; files added after the plan was made are not transcribed", store.root)
    return stored


def _stored_job(store: Store) -> dict[str, Any] | None:
    content = store.read(JOB)
    return json.loads(content) if content is not None else None


def _check_same_job(
    store: Store, stored: Mapping[str, Any], request: JobRequest, options: JobOptions
) -> None:
    """Raise `JobMismatch` if the output is of another job."""
    theirs = dict(stored["options"])
    if not any(store.names(folder) for folder in RESULTS):
        theirs["model_revision"] = options.model_revision  # weights that were broken may be mended
    difference = options.difference(theirs)
    if difference is None and absolute_inputs(stored["inputs"]) != absolute_inputs(request.inputs):
        difference = f"INPUT: {' '.join(stored['inputs'])} there"
    if difference is not None:
        way_out = "choose another --output"
        if difference.startswith(NO_OPTIONS["engine_version"]):
            way_out += ", or --upgrade: what is done stays, this engine does the rest"
        raise JobMismatch(f"{store.root}: is the output of another job, {difference}; {way_out}")
    if request.recordings is None:
        _check_same_question(store, stored, request)


def _check_same_question(store: Store, stored: Mapping[str, Any], request: JobRequest) -> None:
    """Raise `JobMismatch` for other references or another choice of files than the plan was made with.

    Raises `InputError` for references that cannot be read.
    """
    if stored.get("all_files", request.all_files) != request.all_files:
        was = "with" if stored["all_files"] else "without"
        raise JobMismatch(f"{store.root}: was planned {was} --all-files; choose another --output")
    if (was := stored.get("duplicates", request.duplicates)) != request.duplicates:
        raise JobMismatch(f"{store.root}: was planned with --duplicates {was}; choose another --output")
    if request.references is None:
        return
    digest = read_references(request.references).digest
    path = absolute_inputs([request.references])[0]
    if "references_digest" in stored:
        is_same = stored["references_digest"] == digest
    else:
        is_same = stored["references"] == path
    if not is_same:
        raise JobMismatch(
            f"{store.root}: was planned with other --references, or none; to score it against these: "
            f"earshard evaluate {store.root} --references {path}"
        )


def _make_plan(store: Store, request: JobRequest, options: JobOptions) -> dict[str, Any]:
    """Write the plan, then `_job.json`, which vouches for it and is returned."""
    references = read_references(request.references) if request.references else None
    if request.recordings is not None:
        listing = Listing(recordings=iter(request.recordings))
    else:
        listing = list_recordings(
            request.inputs, all_files=request.all_files, references=references, output=str(store.root)
        )
    found, copies = planning.found_table(listing.recordings), COPIES.empty_table()
    if request.duplicates == "once":
        found, copies = split_copies(found)
    plan = planning.plan_of(found, shard_hours=options.shard_hours)
    check_manifest(plan, options)
    _log_listing(listing, references, plan)
    plan_hash = planning.plan_hash(plan, copies)
    store.replace(plan_name(0), files.parquet_bytes(plan))
    if copies.num_rows:
        store.replace(files.COPIES_NAME, files.parquet_bytes(copies))
    job = {
        "inputs": absolute_inputs(request.inputs),
        "references": absolute_inputs([request.references])[0] if request.references else None,
        "references_digest": references.digest if references is not None else None,
        "all_files": request.all_files,
        "duplicates": request.duplicates,
        "options": options.as_dict(),
        "fingerprint": options.fingerprint(),
        "plan_hash": plan_hash,
        "num_skipped": len(listing.skipped),
        "num_passed_over": len(listing.passed_over),
        "num_copies": copies.num_rows,
        "versions": {
            "earshard": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in VERSIONS},
        },
    }
    _store_job(store, job)
    return job


def _store_job(store: Store, job: Mapping[str, Any]) -> None:
    store.replace(JOB, json.dumps(job, indent=2, ensure_ascii=False).encode())


def absolute_inputs(inputs: Sequence[str]) -> list[str]:
    """The inputs as they are compared when a job is resumed."""
    return [canonical_input(text) for text in inputs]


def _log_listing(listing: Listing, references: References | None, plan: pa.Table) -> None:
    log.info("%s to transcribe", counted(plan.num_rows, "recording"))
    for names, what in (
        (listing.skipped, "without a media extension skipped (--all-files takes such)"),
        (listing.passed_over, "or folders passed over that systems leave behind, or that are the output"),
    ):
        if names:
            ending = ", …" if len(names) > NAMES_SHOWN else ""
            log.info("%s %s: %s%s", counted(len(names), "file"), what, ", ".join(names[:NAMES_SHOWN]), ending)
    if references is not None:
        matched = plan.num_rows - plan.column("reference").null_count
        log.info("recordings with a reference: %d of %d", matched, plan.num_rows)


def _reopen_failed(state: OutputState) -> None:
    state.store.delete(SUCCESS)
    log.info("%s to run again", counted(state.reopen_failed(), "failed row"))


def _work_off(
    state: OutputState,
    request: JobRequest,
    options: JobOptions,
    run: RunOptions,
    record: RunRecord,
    load: Load,
) -> None:
    """Rounds over what is left. Raises `Unfinished`."""
    with open_rounds(state, request, options, run, record, partial(load, options, run)) as rounds:
        passes = JobRounds(rounds=rounds, state=state)
        policy = passes.job_policy(request.policy)
        with JobProgress(len(state.shards()), num_done=len(state.done())) as progress:

            def one_round(units: list[WorkUnit], number: int) -> None:
                progress.grow(len(state.shards()))
                passes.transcribe(units, number, policy, progress)

            rounds.until_done(one_round)


def _finish(state: OutputState) -> dict[str, Any]:
    from pipeline.results import report, report_html

    facts = read_output(str(state.store.root), known=state.markers)
    totals = job_totals(facts, wall_s=total_wall_s(state.store))
    page = report_html.render_report(report.make_report([facts]), datetime.now(UTC))
    state.store.replace(PAGE, page.encode())
    write_totals(state.store, totals)
    state.store.sweep()
    return totals
