"""A search from its request to its figures: resume, plan, rounds until nothing is missing, the report."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import planning
from pipeline.config import JobOptions, JobRequest, OptionError, RunOptions
from pipeline.dataflow.workers import Workers
from pipeline.driver.job import JobMismatch, absolute_inputs
from pipeline.driver.lock import DriverLock
from pipeline.driver.model import load_engine, resolve_options
from pipeline.driver.progress import JobProgress
from pipeline.driver.rounds import lost_units, open_rounds
from pipeline.driver.run_record import RunRecord, new_run_id
from pipeline.engine.model.snapshot import BUNDLED
from pipeline.engine.sparsify.level import Level
from pipeline.metrics.shard import RunStamp
from pipeline.output import attempts, files
from pipeline.output.files import plan_name
from pipeline.output.state import WorkUnit
from pipeline.output.store import Store, open_store
from pipeline.results.evaluation import Truth
from pipeline.schema import PLAN
from pipeline.search.settings import Preset, Setting, settings_of
from pipeline.search.trial_schema import SHARD_TRIALS
from pipeline.search.try_shard import FOLDER, SearchEngines, TryShard, commit_trials, trials_name
from pipeline.sources.listing import list_recordings
from pipeline.sources.recording import InputError
from pipeline.sources.references import read_references, read_truths
from pipeline.wording import counted

SEARCH = "_search.json"
SHARD_HOURS = 0.1  # 12 windows: what a killed search loses, times the number of settings
READING_HOURS = 2.0  # a shard whose audio is longer than its files suggest is still read whole

log = logging.getLogger("earshard")


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What a user asks for. `job` says corpus, model and decoding as for `jobs.transcribe`."""

    job: JobRequest
    references: str
    preset: Preset
    shard_hours: float = SHARD_HOURS


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A finished search: its settings, its trials (rows of `SHARD_TRIALS`) and what is known of the corpus.

    speech: true spans of speech by recording_id, in seconds, where the references have segments.
    """

    options: JobOptions
    settings: Sequence[Setting]
    left_out: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    truths: Mapping[str, Truth]
    speech: Mapping[str, Sequence[tuple[float, float]]]

    @property
    def languages(self) -> dict[str, str]:
        """The language of each recording: as the references say, else as dense heard it."""
        heard = {
            trial["recording_id"]: trial["language"]
            for row in self.rows
            for trial in row["trials"]
            if trial["setting"] == self.settings[0].name and trial["language"]
        }
        told = {name: truth.language for name, truth in self.truths.items() if truth.language}
        return heard | told


def run_search(request: SearchRequest, run: RunOptions) -> SearchResult:
    """Carry a search out, or resume it.

    Raises:
        OptionError, InputError, OutputError, ModelNotFound: the request cannot be carried out.
        JobMismatch: the output is of another search.
        OutputBusy: another driver works on it.
        Unfinished: a shard's process died, or raised, in every round.
    """
    store = open_store(request.job.output)
    options = resolve_options(request.job, run)
    settings, left_out = settings_of(request.preset, num_layers(options))
    if left_out:
        log.warning("left out, their layer is above the model's: %s", ", ".join(left_out))
    if all(setting.level is None for setting in settings):
        raise OptionError(f"--preset: {options.model} has no layer that it tries")
    if options.model == BUNDLED:
        log.warning("--model %s: what is found says nothing about any other model", BUNDLED)
    run_id = new_run_id()
    with DriverLock(store, run_id), RunRecord(store, run_id) as record:
        plan = _open_plan(store, request, options, settings)
        stamp = RunStamp(
            run_id=run_id,
            fingerprint=options.fingerprint(),
            plan_hash=planning.plan_hash(plan),
            gpu_hour_usd=0.0,
        )
        state = TrialsState(store=store, stamp=stamp, plan=plan)
        if state.units():
            _work_off(state, request, options, run, record, settings)
        store.sweep()
    truths, speech = _truths(request.references, plan)
    rows = [row for shard_id in state.shards() for row in _read(store, shard_id).to_pylist()]
    return SearchResult(
        options=options, settings=settings, left_out=left_out, rows=rows, truths=truths, speech=speech
    )


def num_layers(options: JobOptions) -> int:
    """Encoder layers of the model."""
    from pipeline.driver.model import find_model

    snapshot = find_model(options.model, options.model_revision)
    return int(snapshot.config["encoder_layers"])


def _open_plan(
    store: Store, request: SearchRequest, options: JobOptions, settings: Sequence[Setting]
) -> pa.Table:
    """The stored plan, or a new one. Raises `JobMismatch`."""
    wanted = _description(request, options, settings)
    content = store.read(SEARCH)
    if content is None:
        return _make_plan(store, request, wanted)
    stored = json.loads(content)
    difference = options.difference(stored["options"])
    for name, value in wanted.items():
        if difference is None and name != "options" and stored[name] != value:
            difference = f"its {name} are not those asked for now"
    if difference is not None:
        raise JobMismatch(
            f"{store.root}: is the output of another search, {difference}; choose another --output"
        )
    log.info("%s: resuming", store.root)
    return files.parquet_table(store.read(plan_name(0)) or b"", PLAN)


def _description(request: SearchRequest, options: JobOptions, settings: Sequence[Setting]) -> dict[str, Any]:
    return {
        "inputs": absolute_inputs(request.job.inputs),
        "options": options.as_dict(),
        "settings": [setting.as_dict() for setting in settings],
        "shards": {"shard_hours": request.shard_hours},
    }


def _make_plan(store: Store, request: SearchRequest, description: Mapping[str, Any]) -> pa.Table:
    references = read_references(request.references)
    listing = list_recordings(request.job.inputs, all_files=request.job.all_files, references=references)
    plan = planning.make_plan(listing.recordings, shard_hours=request.shard_hours)
    matched = plan.num_rows - plan.column("reference").null_count
    log.info("%s, %d with a reference", counted(plan.num_rows, "recording"), matched)
    if not matched:
        raise InputError(f"{request.references}: no line of it belongs to a recording of the corpus")
    store.replace(plan_name(0), files.parquet_bytes(plan))
    store.replace(SEARCH, json.dumps(description, indent=2, ensure_ascii=False).encode())
    return plan


@dataclass(frozen=True, kw_only=True)
class TrialsState:
    """What is done and left of a search, by the names of its trials."""

    store: Store
    stamp: RunStamp
    plan: pa.Table

    def shards(self) -> list[int]:
        """The numbers of all shards."""
        return sorted(set(self.plan.column("shard_id").to_pylist()))

    def units(self) -> list[WorkUnit]:
        """The shards that are not committed. Each attempt is the first: a search gives no recording up."""
        done = set(self.store.names(FOLDER))
        return [
            WorkUnit(shard_id=shard_id, attempt=1, rows=self.plan.filter(pc.field("shard_id") == shard_id))
            for shard_id in self.shards()
            if trials_name(shard_id) not in done
        ]

    def reload(self) -> None:
        """Nothing is kept."""

    def progress(self) -> tuple[int, ...]:
        """How many shards are committed."""
        return (len(self.store.names(FOLDER)),)


def _work_off(
    state: TrialsState,
    request: SearchRequest,
    options: JobOptions,
    run: RunOptions,
    record: RunRecord,
    settings: Sequence[Setting],
) -> None:
    """Rounds over the shards that are left. Raises `Unfinished`."""
    timed = settings[-1].level if request.preset.profiles else None
    load = partial(load_bench, options, settings, run, timed)
    reading = replace(options, shard_hours=READING_HOURS)
    total = len(state.shards())
    with (
        open_rounds(state, request.job, reading, run, record, load) as rounds,
        JobProgress(total, num_done=total - len(state.units())) as progress,
    ):

        def one_round(units: list[WorkUnit], number: int) -> None:
            this_round = rounds.context(number, work=TryShard, commit=commit_trials)
            for done in rounds.run(units, this_round):
                progress.add(done)
            lost_units(state.store, this_round.round_id)
            attempts.forget_run(state.store, state.stamp.run_id)

        rounds.until_done(one_round)


def load_bench(
    options: JobOptions,
    settings: Sequence[Setting],
    run: RunOptions,
    timed_level: Level | None,
    workers: Workers,
) -> SearchEngines:
    """Make the engines inside the actor that owns them: one for each batch size."""
    sizes = {setting.condition.batch_size for setting in settings}
    engines = {
        size: load_engine(options, run if size is None else replace(run, batch_size=size), workers)
        for size in sizes
    }
    return SearchEngines(engines=engines, settings=settings, timed_level=timed_level)


def _read(store: Store, shard_id: int) -> pa.Table:
    return files.parquet_table(store.read(trials_name(shard_id)) or b"", SHARD_TRIALS)


def _truths(references: str, plan: pa.Table) -> tuple[dict[str, Truth], dict[str, list[tuple[float, float]]]]:
    """What is known of the recordings: texts, and spans of speech where there are segments."""
    rows = plan.select(["recording_id", "uri"]).to_pylist()
    lines = read_truths(references, {row["recording_id"]: row["uri"] for row in rows})
    truths = {
        recording_id: Truth(text=line["text"], language=line.get("language"))
        for recording_id, line in lines.items()
    }
    speech = {
        recording_id: [(float(span["start"]), float(span["end"])) for span in line["segments"]]
        for recording_id, line in lines.items()
        if line.get("segments") is not None
    }
    return truths, speech
