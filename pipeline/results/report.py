"""What outputs cost and how good they are: by run, day, model and shard, from their committed files alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.metrics import cost, intervals, wer
from pipeline.metrics.shard import sparsity
from pipeline.output.files import shard_name
from pipeline.output.retried import OutputError
from pipeline.results import breakdown
from pipeline.results.breakdown import SliceFigures
from pipeline.results.report_source import Failure, OutputFacts, RecordingCounts, Run, run_name
from pipeline.schema import COUNTS

NUM_SLOWEST = 10


@dataclass(frozen=True, kw_only=True)
class SlowRecording:
    """A recording that took the device long for its length."""

    recording_id: str
    output: str
    audio_s: float
    device_s: float
    rtfx: float | None


@dataclass(frozen=True, kw_only=True)
class GroupFigures:
    """A group of shards and the runs that made them. Ratios are null where there is nothing to divide by.

    `cost_usd` is the price of the time the device worked, `cost_usd_held` of the GPUs held, idle and killed
    runs included; null where no GPU was used. `shadow_saved` is the share of device time that sparsification
    saved, measured on windows decoded both ways. `wer` is of whole recordings, parts and channels joined, and
    `wer_low` and `wer_high` are the central 95 % of a bootstrap over them; a shard has no interval, and its
    `wer` leaves out what is joined.
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
    wer_low: float | None
    wer_high: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole report."""

    outputs: tuple[str, ...]
    total: GroupFigures
    num_recordings: int
    num_failed: int
    num_skipped: int  # files that were no input: without a media extension
    num_passed_over: int  # and what systems leave behind, or the output itself
    num_copies: int  # recordings whose content is that of others
    by_run: tuple[GroupFigures, ...]
    by_day: tuple[GroupFigures, ...]
    by_model: tuple[GroupFigures, ...]
    by_shard: tuple[GroupFigures, ...]
    by_language: tuple[SliceFigures, ...]
    by_folder: tuple[SliceFigures, ...]
    slowest_shards: tuple[GroupFigures, ...]
    slowest_recordings: tuple[SlowRecording, ...]
    failures: tuple[Failure, ...]
    markers: tuple[dict[str, Any], ...]
    adaptive: tuple[dict[str, Any], ...]  # of the outputs whose sparsity was adaptive, see `adaptive.summary`

    @property
    def wer_interval(self) -> tuple[float, float] | None:
        """The central 95 % of the WER of all recordings; None without references."""
        low, high = self.total.wer_low, self.total.wer_high
        return None if low is None or high is None else (low, high)


def make_report(outputs: Sequence[OutputFacts], languages: Collection[str] = ()) -> Report:
    """Add up outputs; languages: those that have figures of their own, all if empty.

    Raises `OutputError` if an output is given twice.
    """
    paths = [output.path for output in outputs]
    if len(set(paths)) < len(paths):
        raise OutputError(f"{next(path for path in paths if paths.count(path) > 1)}: is given twice")
    markers = [marker for output in outputs for marker in output.markers]
    runs = [run for output in outputs for run in output.runs]
    scored = [one for output in outputs for one in output.scored]
    by_shard = tuple(_figures(_shard_name(marker, len(outputs) > 1), [marker]) for marker in markers)
    return Report(
        outputs=tuple(paths),
        total=_figures("total", markers, runs, [one.counts for one in scored]),
        num_recordings=sum(output.num_recordings for output in outputs),
        num_failed=sum(output.num_failed for output in outputs),
        num_skipped=sum(output.num_skipped for output in outputs),
        num_passed_over=sum(output.num_passed_over for output in outputs),
        num_copies=sum(output.num_copies for output in outputs),
        by_run=_by_run(markers, runs, scored),
        by_day=_grouped(markers, runs, scored, lambda m: f"{m['finished_at']:%Y-%m-%d}", lambda run: run.day),
        by_model=_grouped(markers, runs, scored, lambda m: m["model"], lambda run: run.model),
        by_shard=by_shard,
        by_language=breakdown.by_language(
            [one for output in outputs for one in output.languages.items()],
            [(one.language, one.counts) for one in scored],
            languages,
        ),
        by_folder=breakdown.by_folder(
            [one for output in outputs for one in output.folders.items()],
            [(one.folder, one.counts) for one in scored],
        ),
        slowest_shards=_slowest(by_shard),
        slowest_recordings=_slowest_recordings(markers),
        failures=_failures(outputs),
        markers=tuple(markers),
        adaptive=tuple(one.adaptive | {"output": one.path} for one in outputs if one.adaptive is not None),
    )


def _shard_name(marker: dict[str, Any], several: bool) -> str:
    name = shard_name(marker["shard_id"])
    return f"{Path(marker['output']).name}/{name}" if several else name


def _by_run(
    markers: Sequence[dict[str, Any]], runs: Sequence[Run], scored: Sequence[RecordingCounts]
) -> tuple[GroupFigures, ...]:
    """The runs of all outputs in the order they were started, which their ids tell."""
    groups = _grouped(
        markers, runs, scored, lambda m: run_name(m["output"], m["run_id"]), lambda run: run.name
    )
    return tuple(sorted(groups, key=lambda figures: figures.group.rpartition("/")[2]))


def _grouped(
    markers: Iterable[dict[str, Any]],
    runs: Iterable[Run],
    scored: Iterable[RecordingCounts],
    group_of_marker: Callable[[dict[str, Any]], str],
    group_of_run: Callable[[Run], str],
) -> tuple[GroupFigures, ...]:
    groups: defaultdict[str, tuple[list[dict[str, Any]], list[Run], list[wer.Counts]]]
    groups = defaultdict(lambda: ([], [], []))
    for run in runs:
        groups[group_of_run(run)][1].append(run)
    for marker in markers:
        groups[group_of_marker(marker)][0].append(marker)
    for one in scored:
        groups[group_of_marker(one.marker)][2].append(one.counts)
    return tuple(_figures(name, *members) for name, members in sorted(groups.items()))


def _figures(
    group: str,
    markers: Sequence[dict[str, Any]],
    runs: Sequence[Run] | None = None,
    scored: Sequence[wer.Counts] | None = None,
) -> GroupFigures:
    """The figures of a group.

    `runs` and `scored` (one entry a recording) are None for a shard, which shares its run with others and
    knows only the recordings that lie wholly in it.
    """

    def total(name: str) -> float:
        return sum(marker[name] for marker in markers if marker[name] is not None)

    audio_s, device_s = total("audio_s"), total("device_s")
    usd = total("cost_usd") if any(marker["cost_usd"] is not None for marker in markers) else None
    held_usd = _held_usd(runs or ())
    if scored is None:
        counts, interval = wer.Counts(**{name: int(total(name)) for name in COUNTS}), None
    else:
        counts = wer.total(scored)
        interval = intervals.wer_interval(scored) if scored else None
    dense_s = total("shadow_dense_device_s")
    return GroupFigures(
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
        sparsity_mean=sparsity(total("kept_positions"), total("total_positions")),
        num_fallback=int(total("num_fallback")),
        shadow_saved=1 - total("shadow_sparse_device_s") / dense_s if dense_s else None,
        wer=counts.wer,
        wer_low=interval[0] if interval else None,
        wer_high=interval[1] if interval else None,
    )


def _held_usd(runs: Sequence[Run]) -> float | None:
    """The price of the GPUs that runs held; None where none was held or no price is known."""
    paid = [run for run in runs if run.gpu_s_held and run.usd_per_gpu_hour is not None]
    if not paid:
        return None
    return sum(run.gpu_s_held / cost.SECONDS_PER_HOUR * (run.usd_per_gpu_hour or 0.0) for run in paid)


def _per_hour(usd: float | None, audio_s: float) -> float | None:
    return usd / audio_s * cost.SECONDS_PER_HOUR if usd is not None and audio_s > 0 else None


def _slowest(shards: Sequence[GroupFigures]) -> tuple[GroupFigures, ...]:
    timed = [shard for shard in shards if shard.rtfx is not None]
    return tuple(sorted(timed, key=lambda shard: shard.rtfx or 0.0)[:NUM_SLOWEST])


def _slowest_recordings(markers: Sequence[dict[str, Any]]) -> tuple[SlowRecording, ...]:
    """The slowest of those that the shards name; what was done before shards named them is not known."""
    named = [slow | {"output": marker["output"]} for marker in markers for slow in marker["slowest"] or ()]
    return tuple(
        SlowRecording(**slow, rtfx=cost.rtfx(slow["device_s"], slow["audio_s"]))
        for slow in cost.slowest_recordings(named, NUM_SLOWEST)
    )


def _failures(outputs: Iterable[OutputFacts]) -> tuple[Failure, ...]:
    causes: dict[str, Failure] = {}
    for output in outputs:
        for failure in output.failures:
            cause = failure.error_type
            causes[cause] = causes[cause] + failure if cause in causes else failure
    return tuple(sorted(causes.values(), key=lambda failure: (-failure.num_rows, failure.error_type)))
