"""What outputs cost and how good they are: by run, day, model and shard, from their committed files alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import commit, cost, evaluation, scoring
from pipeline.adaptive.summary import summarise_policy
from pipeline.joining import join
from pipeline.ledger import read_transcripts
from pipeline.schema import COUNTS
from pipeline.storage import OutputError, Store, existing_store

MAX_EXAMPLES = 3
NUM_SLOWEST = 10


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
        return _run_name(self.output, self.run_id)


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


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the files of one output say. `counts` has one entry for each recording that was scored."""

    path: str
    markers: tuple[dict[str, Any], ...]  # rows of METRICS
    runs: tuple[Run, ...]
    counts: tuple[scoring.Counts, ...]
    num_recordings: int
    num_failed: int
    failures: tuple[Failure, ...]
    adaptive: dict[str, Any] | None  # see `adaptive.summary`


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A group of shards and the runs that made them. Ratios are null where there is nothing to divide by.

    `cost_usd` is the price of the time the device worked, `cost_usd_held` of the GPUs held, idle and killed
    runs included; null where no GPU was used. `shadow_saved` is the share of device time that sparsification
    saved, measured on windows decoded both ways.
    """

    group: str
    num_shards: int
    num_rows: int
    num_failed_rows: int
    audio_s: float
    speech_s: float
    device_s: float
    wall_s: float | None
    gpu_s_held: float | None
    rtfx: float | None
    cost_usd: float | None
    cost_usd_held: float | None
    usd_per_audio_hour: float | None
    usd_per_audio_hour_held: float | None
    sparsity_mean: float | None
    num_fallback: int
    shadow_saved: float | None
    wer: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole report; `wer_interval` is the central 95 % of a bootstrap over recordings."""

    outputs: tuple[str, ...]
    total: Figures
    num_recordings: int
    num_failed: int
    wer_interval: tuple[float, float] | None
    by_run: tuple[Figures, ...]
    by_day: tuple[Figures, ...]
    by_model: tuple[Figures, ...]
    by_shard: tuple[Figures, ...]
    slowest_shards: tuple[Figures, ...]
    failures: tuple[Failure, ...]
    markers: tuple[dict[str, Any], ...]
    adaptive: tuple[dict[str, Any], ...]  # of the outputs whose sparsity was adaptive, see `adaptive.summary`


def read_output(path: str, usd_per_gpu_hour: float | None = None) -> Output:
    """Read an output, finished or not.

    `usd_per_gpu_hour` is the price to count with; None: the one its own shards were counted with. Raises
    `OutputError` if there is no output, and `ForeignMarker`.
    """
    store = existing_store(path)
    job = json.loads(store.read("_job.json") or b"{}")
    markers = commit.committed(store, job["fingerprint"], job["plan_hash"]).to_pylist()
    price = usd_per_gpu_hour if usd_per_gpu_hour is not None else _price(markers)
    for marker in markers:
        marker["output"] = path
        if usd_per_gpu_hour is not None:
            marker["cost_usd"] = cost.cost_usd(marker["device_s"], usd_per_gpu_hour, marker["device"])
    rows = _Rows()
    for row in read_transcripts(path):
        rows.add(row)
    return Output(
        path=path,
        markers=tuple(markers),
        runs=tuple(_runs(store, path, job["options"]["model"], price)),
        counts=tuple(rows.all_counts()),
        num_recordings=len(rows.failed),
        num_failed=sum(rows.failed.values()),
        failures=tuple(rows.failures.values()),
        adaptive=summarise_policy(store, markers, job["options"].get("wer_budget")),
    )


class _Rows:
    """What is kept of the rows of an output while they are read once."""

    def __init__(self) -> None:
        self.failed: dict[str, bool] = {}  # by recording_id
        self.failures: dict[str, Failure] = {}  # by cause
        self._counts: list[scoring.Counts] = []
        self._joint: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def add(self, row: dict[str, Any]) -> None:
        """Take a row of `TRANSCRIPTS` in."""
        recording_id, is_failed = row["recording_id"], row["status"] == "failed"
        self.failed[recording_id] = self.failed.get(recording_id, False) or is_failed
        if is_failed:
            cause = row["error_type"]
            one = Failure(error_type=cause, num_rows=1, examples=(f"{recording_id}: {row['error_message']}",))
            self.failures[cause] = one + self.failures[cause] if cause in self.failures else one
        if row["num_hits"] is not None:
            self._counts.append(scoring.Counts(**{name: row[name] for name in COUNTS}))
        elif row["reference"] is not None:
            self._joint[recording_id].append(row)

    def all_counts(self) -> Iterator[scoring.Counts]:
        """The word counts of every recording that was scored; those of several rows are scored joined."""
        yield from self._counts
        for rows in self._joint.values():
            whole = join(rows)
            if whole.text is not None:
                yield scoring.count_errors(rows[0]["reference"], whole.text, whole.language)


def _price(markers: Sequence[dict[str, Any]]) -> float | None:
    """Dollars per GPU-hour that the latest shard with a cost was counted with."""
    paid = [marker for marker in markers if marker["cost_usd"] is not None and marker["device_s"] > 0]
    if not paid:
        return None
    latest = max(paid, key=lambda marker: marker["finished_at"])
    return latest["cost_usd"] / latest["device_s"] * cost.SECONDS_PER_HOUR


def _runs(store: Store, path: str, model: str, price: float | None) -> Iterator[Run]:
    for name in store.names("runs"):
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


def make_report(outputs: Sequence[Output]) -> Report:
    """Add up outputs. Raises `OutputError` if one is given twice."""
    paths = [output.path for output in outputs]
    if len(set(paths)) < len(paths):
        raise OutputError(f"{next(path for path in paths if paths.count(path) > 1)}: is given twice")
    markers = [marker for output in outputs for marker in output.markers]
    runs = [run for output in outputs for run in output.runs]
    counts = [count for output in outputs for count in output.counts]
    total = _figures("total", markers, runs)
    by_shard = tuple(_figures(_shard_name(marker, len(outputs) > 1), [marker], None) for marker in markers)
    return Report(
        outputs=tuple(paths),
        total=total,
        num_recordings=sum(output.num_recordings for output in outputs),
        num_failed=sum(output.num_failed for output in outputs),
        wer_interval=evaluation.wer_interval(counts) if counts else None,
        by_run=_by_run(markers, runs),
        by_day=_grouped(markers, runs, lambda m: f"{m['finished_at']:%Y-%m-%d}", lambda run: run.day),
        by_model=_grouped(markers, runs, lambda m: m["model"], lambda run: run.model),
        by_shard=by_shard,
        slowest_shards=_slowest(by_shard),
        failures=_failures(outputs),
        markers=tuple(markers),
        adaptive=tuple(output.adaptive for output in outputs if output.adaptive is not None),
    )


def _run_name(output: str, run_id: str) -> str:
    return f"{Path(output).name}/{run_id}"


def _shard_name(marker: dict[str, Any], several: bool) -> str:
    name = f"shard-{marker['shard_id']:06d}"
    return f"{Path(marker['output']).name}/{name}" if several else name


def _by_run(markers: Sequence[dict[str, Any]], runs: Sequence[Run]) -> tuple[Figures, ...]:
    """The runs of all outputs in the order they were started, which their ids tell."""
    groups = _grouped(markers, runs, lambda m: _run_name(m["output"], m["run_id"]), lambda run: run.name)
    return tuple(sorted(groups, key=lambda figures: figures.group.rpartition("/")[2]))


def _grouped(
    markers: Iterable[dict[str, Any]],
    runs: Iterable[Run],
    group_of_marker: Callable[[dict[str, Any]], str],
    group_of_run: Callable[[Run], str],
) -> tuple[Figures, ...]:
    groups: defaultdict[str, tuple[list[dict[str, Any]], list[Run]]] = defaultdict(lambda: ([], []))
    for run in runs:
        groups[group_of_run(run)][1].append(run)
    for marker in markers:
        groups[group_of_marker(marker)][0].append(marker)
    return tuple(_figures(name, *members) for name, members in sorted(groups.items()))


def _figures(group: str, markers: Sequence[dict[str, Any]], runs: Sequence[Run] | None) -> Figures:
    """The figures of a group; `runs` is None for a shard, which shares its run with others."""

    def total(name: str) -> float:
        return sum(marker[name] for marker in markers if marker[name] is not None)

    audio_s, device_s = total("audio_s"), total("device_s")
    usd = total("cost_usd") if any(marker["cost_usd"] is not None for marker in markers) else None
    held_usd = _held_usd(runs or ())
    counts = scoring.Counts(**{name: int(total(name)) for name in COUNTS})
    positions, dense_s = total("total_positions"), total("shadow_dense_device_s")
    return Figures(
        group=group,
        num_shards=len(markers),
        num_rows=int(total("num_recordings")),
        num_failed_rows=int(total("num_failed")),
        audio_s=audio_s,
        speech_s=total("speech_s"),
        device_s=device_s,
        wall_s=None if runs is None else sum(run.wall_s for run in runs),
        gpu_s_held=None if runs is None else sum(run.gpu_s_held for run in runs),
        rtfx=cost.rtfx(device_s, audio_s),
        cost_usd=usd,
        cost_usd_held=held_usd,
        usd_per_audio_hour=_per_hour(usd, audio_s),
        usd_per_audio_hour_held=_per_hour(held_usd, audio_s),
        sparsity_mean=1 - total("kept_positions") / positions if positions else None,
        num_fallback=int(total("num_fallback")),
        shadow_saved=1 - total("shadow_sparse_device_s") / dense_s if dense_s else None,
        wer=counts.wer,
    )


def _held_usd(runs: Sequence[Run]) -> float | None:
    """The price of the GPUs that runs held; None where none was held or no price is known."""
    paid = [run for run in runs if run.gpu_s_held and run.usd_per_gpu_hour is not None]
    if not paid:
        return None
    return sum(run.gpu_s_held / cost.SECONDS_PER_HOUR * (run.usd_per_gpu_hour or 0.0) for run in paid)


def _per_hour(usd: float | None, audio_s: float) -> float | None:
    return usd / audio_s * cost.SECONDS_PER_HOUR if usd is not None and audio_s > 0 else None


def _slowest(shards: Sequence[Figures]) -> tuple[Figures, ...]:
    timed = [shard for shard in shards if shard.rtfx is not None]
    return tuple(sorted(timed, key=lambda shard: shard.rtfx or 0.0)[:NUM_SLOWEST])


def _failures(outputs: Iterable[Output]) -> tuple[Failure, ...]:
    causes: dict[str, Failure] = {}
    for output in outputs:
        for failure in output.failures:
            cause = failure.error_type
            causes[cause] = causes[cause] + failure if cause in causes else failure
    return tuple(sorted(causes.values(), key=lambda failure: (-failure.num_rows, failure.error_type)))
