"""The plots of a report: numbers to places in a plot's coordinates. Pure functions; a template draws them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, ClassVar

from pipeline.results.plot_axes import Axes, round_up
from pipeline.results.report import Report
from pipeline.results.subtitles import shown_text
from pipeline.wording import counted, duration

WIDTH = 440.0  # of a plot's coordinates, about the pixels that it has on a screen
NUM_BINS = 60
MAX_BARS = 14
MAX_LABEL = 44
PLOT = (46.0, 14.0, 432.0, 168.0)  # left, top, right, bottom of a series' axes


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar with its name above it; places in a plot's coordinates."""

    y: float
    width: float
    label: str
    name: str  # unshortened
    value: str
    series: int


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Horizontal bars, the longest across the plot."""

    kind: ClassVar[str] = "bars"
    title: str
    note: str
    bars: tuple[Bar, ...]
    height: float
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line over time or order; `points` and `area` are lists of coordinates as SVG takes them."""

    kind: ClassVar[str] = "line"
    title: str
    note: str
    points: str
    area: str
    ticks: tuple[tuple[float, str], ...]  # y, label
    first: str
    last: str


def report_plots(report: Report) -> tuple[Line | Bars | None, ...]:
    """The plots of a report; None where there is nothing to draw."""
    markers = report.markers
    return (
        throughput(markers),
        cost_bars(report),
        sparsity(markers),
        disagreement(markers),
        error_bars(report),
    )


def throughput(markers: Sequence[dict[str, Any]]) -> Line | None:
    """Audio hours per hour of work. A shard's audio counts evenly from its start to its end.

    Time in which no run was under way is left out: an archive works an hour a day.
    """
    if not markers:
        return None
    idle = _idle(markers)
    spans = [(_busy(m["started_at"], idle), _busy(m["finished_at"], idle), m["audio_s"]) for m in markers]
    begin, end = min(span[0] for span in spans), max(span[1] for span in spans)
    width_s = max((end - begin) / NUM_BINS, 1e-3)
    bins = [0.0] * NUM_BINS
    for start, stop, audio_s in spans:
        _spread(bins, (start - begin) / width_s, (stop - begin) / width_s, audio_s / width_s)
    values = [value for value in bins for _ in range(2)]
    places = [edge for i in range(NUM_BINS) for edge in (i / NUM_BINS, (i + 1) / NUM_BINS)]
    return _series(
        "Throughput",
        "Audio hours done in an hour of work." + (" Time between runs is left out." if idle else ""),
        list(zip(places, values, strict=True)),
        "{:,g}".format,
        (_moment(markers, min, "started_at"), _moment(markers, max, "finished_at")),
    )


def _idle(markers: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """The gaps between runs, from the first start of a shard of each to its last end."""
    runs: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for marker in markers:
        times = (marker["started_at"].timestamp(), marker["finished_at"].timestamp())
        runs[marker["output"], marker["run_id"]] += times
    gaps, latest = [], 0.0
    for start, end in sorted((min(times), max(times)) for times in runs.values()):
        if latest and start > latest:
            gaps.append((latest, start))
        latest = max(latest, end)
    return gaps


def _busy(moment: datetime, idle: Sequence[tuple[float, float]]) -> float:
    """A moment, earlier by all idle time before it."""
    time = moment.timestamp()
    return time - sum(end - start for start, end in idle if end <= time)


def _spread(bins: list[float], start: float, stop: float, amount: float) -> None:
    """Add `amount` to the bins from `start` to `stop` (in bins), evenly."""
    length = max(stop - start, 1e-9)
    for i in range(max(0, int(start)), min(len(bins), int(stop) + 1)):
        bins[i] += amount * max(0.0, min(stop, i + 1) - max(start, i)) / length


def _moment(markers: Sequence[dict[str, Any]], choose: Callable[..., datetime], name: str) -> str:
    return f"{choose(marker[name] for marker in markers):%Y-%m-%d %H:%M}"


def sparsity(markers: Sequence[dict[str, Any]]) -> Line | None:
    """The share of encoder positions dropped in each shard, in the order they were done."""
    done = sorted(markers, key=lambda marker: marker["finished_at"])
    values = [marker["sparsity_mean"] for marker in done if marker["sparsity_mean"] is not None]
    if not any(values):
        return None
    return _by_shard("Sparsity", "Share of encoder positions dropped, by shard with speech.", values)


def disagreement(markers: Sequence[dict[str, Any]]) -> Line | None:
    """How far sparse text is from dense text, on the windows decoded both ways of all shards done so far."""
    done = sorted(markers, key=lambda marker: marker["finished_at"])
    errors, words = (
        list(accumulate(marker[name] for marker in done))
        for name in ("shadow_num_errors", "shadow_num_words")
    )
    if not words or not words[-1]:
        return None
    values = [edits / max(1, total) for edits, total in zip(errors, words, strict=True)]
    both = f"{counted(words[-1], 'word')} decoded both ways"
    note = f"Word edits per dense word, over all shards so far; {both}."
    return _by_shard("Sparse beside dense", note, values)


def _by_shard(title: str, note: str, values: Sequence[float]) -> Line:
    """A share for each shard in the order they were done."""
    ends = ("first shard", "last shard")
    if len(values) == 1:
        return _series(title, note, [(0.0, values[0]), (1.0, values[0])], _percent, ends)
    points = [(i / (len(values) - 1), value) for i, value in enumerate(values)]
    return _series(title, note, points, _percent, ends)


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


def _series(
    title: str,
    note: str,
    points: Sequence[tuple[float, float]],
    text: Callable[[float], str],
    ends: tuple[str, str],
) -> Line:
    """Points with x from 0 to 1 and y from 0 on, placed in `PLOT`."""
    left, top, right, bottom = PLOT
    highest = round_up(max(value for _, value in points))
    axes = Axes(left=left, top=top, right=right, bottom=bottom, x_range=(0.0, 1.0), y_range=(0.0, highest))
    line = " ".join(f"{axes.x(x):.1f},{axes.y(value):.1f}" for x, value in points)
    labels = tuple((axes.y(value), text(value)) for value in (0.0, highest / 2, highest))
    area = f"{left},{bottom} {line} {right},{bottom}"
    return Line(title=title, note=note, points=line, area=area, ticks=labels, first=ends[0], last=ends[1])


def cost_bars(report: Report) -> Bars | None:
    """What each run cost, by device time and by GPU-seconds held; where nothing has a price, its time."""
    runs = report.by_run[-MAX_BARS:]
    left_out = len(report.by_run) - len(runs)
    note = f" The last {len(runs)} of {len(report.by_run)} runs." if left_out else ""
    if any(run.cost_usd is not None or run.cost_usd_held is not None for run in runs):
        pairs = [(run.group, (run.cost_usd or 0.0, run.cost_usd_held or 0.0)) for run in runs]
        keys = ("device time", "GPUs held, idle time too")
        return _bars("Cost per run", f"US dollars.{note}", pairs, "${:,.2f}".format, keys)
    times = [(run.group, (run.device_s,)) for run in runs]
    return _bars("Device time per run", f"A CPU has no price here.{note}", times, duration)


def error_bars(report: Report) -> Bars | None:
    """Failed rows by cause."""
    causes = [(failure.error_type, (float(failure.num_rows),)) for failure in report.failures[:MAX_BARS]]
    return _bars("Failures by cause", "Rows that failed.", causes, "{:,.0f}".format)


def _bars(
    title: str,
    note: str,
    groups: Sequence[tuple[str, tuple[float, ...]]],
    text: Callable[[float], str],
    keys: tuple[str, ...] = (),
) -> Bars | None:
    if not groups:
        return None
    longest = max(value for _, values in groups for value in values) or 1.0
    bars, y = [], 4.0
    for name, values in groups:
        for series, value in enumerate(values):
            label = shown_text(name) if series == 0 else ""
            y += 18.0 if label else 0.0
            width = max(1.0, (WIDTH - 90.0) * value / longest)
            bars.append(
                Bar(y=y, width=width, label=shorten(label), name=label, value=text(value), series=series)
            )
            y += 15.0
        y += 6.0
    return Bars(title=title, note=note, bars=tuple(bars), height=y, keys=keys)


def shorten(text: str) -> str:
    """A text that fits above a bar, its middle left out."""
    half = MAX_LABEL // 2
    return text if len(text) <= MAX_LABEL else f"{text[:half]}…{text[-half + 1 :]}"
