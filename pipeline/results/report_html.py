"""The report as one HTML page that loads nothing: numbers to strings and places, the template does the rest.

Everything reaches the page through Jinja's autoescaping, and the page forbids itself scripts and requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pipeline.metrics.cost import SECONDS_PER_HOUR
from pipeline.results.breakdown import SliceFigures
from pipeline.results.page import Table, page
from pipeline.results.report import GroupFigures, Report
from pipeline.results.report_plots import report_plots
from pipeline.results.subtitles import shown_text
from pipeline.wording import counted, duration

MAX_FOLDERS = 50


def render_report(report: Report, made_at: datetime) -> str:
    """The page of a report."""
    return page(
        "report.html.j2",
        title=_title(report),
        made_at=f"{made_at:%Y-%m-%d %H:%M} UTC",
        tiles=tiles(report),
        plots=[plot for plot in report_plots(report) if plot is not None],
        tables=[*evidence(report), *slices(report), *tables(report), *slowest_recordings(report)],
        failures=[
            (failure.error_type, failure.num_rows, [shown_text(text) for text in failure.examples])
            for failure in report.failures
        ],
    )


def _title(report: Report) -> str:
    num = len(report.outputs)
    return shown_text(report.outputs[0]) if num == 1 else f"{num} outputs"


def _left_out(report: Report) -> str:
    """How many failed or are copies, and how many files were no input, where there are any."""
    num_files = report.num_skipped + report.num_passed_over
    remarks = [f"{report.num_failed:,} failed"]
    remarks += [f"{report.num_copies:,} of them copies"] if report.num_copies else []
    remarks += [f"{counted(num_files, 'other file')} left out"] if num_files else []
    return ", ".join(remarks)


def tiles(report: Report) -> list[tuple[str, str, str]]:
    """The figures that matter most: a name, a value and a remark each."""
    total, interval = report.total, report.wer_interval
    return [
        ("Audio", duration(total.audio_s), f"{duration(total.speech_s)} of it speech"),
        ("Recordings", f"{report.num_recordings:,}", _left_out(report)),
        ("Speed", _text(total.rtfx, "{:,.1f}x"), f"{duration(total.device_s)} of device time"),
        _cost_tile(total),
        (
            "Word error rate",
            _text(total.wer, "{:.2%}"),
            "no references" if interval is None else f"{interval[0]:.2%} to {interval[1]:.2%} (95%)",
        ),
        (
            "Sparsity",
            _text(total.sparsity_mean, "{:.1%}"),
            _text(total.shadow_saved, "{:.1%} of device time saved", "of encoder positions dropped"),
        ),
        *([_excess_tile(report)] if report.adaptive else []),
    ]


def _cost_tile(total: GroupFigures) -> tuple[str, str, str]:
    """What the bill says, else the price of the time that devices worked, and both by audio hour."""
    usd = total.cost_usd if total.cost_usd_held is None else total.cost_usd_held
    remark = _text(total.usd_per_audio_hour, "${:.4f} an audio hour", "a CPU has no price")
    idle = _text(total.usd_per_audio_hour_held, ", ${:.4f} with idle time", "")
    return "Cost", _text(usd, "${:,.2f}"), remark + idle


def _excess_tile(report: Report) -> tuple[str, str, str]:
    """How much worse than dense adaptive sparsity was: the output with the largest bound.

    Its own shadow says so, else the evidence that it began with.
    """
    name = "Excess errors against dense"
    own = [found for found in report.adaptive if found["excess_bound"] is not None]
    if own:
        worst = max(own, key=lambda found: found["excess_bound"])
        remark = f"at most {worst['excess_bound']:.2%}, budget {worst['wer_budget']:.2%}"
        return name, f"{worst['excess']:.2%}", remark
    given = [found["evidence"] for found in report.adaptive if found["evidence"] is not None]
    if not given:
        return name, "none", "all shards ran dense"
    worst = max(given, key=lambda found: found["excess_bound"])
    return (
        name,
        f"{worst['excess']:.2%}",
        f"at most {worst['excess_bound']:.2%}, as measured on {worst['model']}",
    )


def _text(value: float | None, form: str, otherwise: str = "-") -> str:
    return otherwise if value is None else form.format(value)


def _interval(figures: GroupFigures | SliceFigures) -> str:
    low, high = figures.wer_low, figures.wer_high
    return "-" if low is None or high is None else f"{low:.1%} to {high:.1%}"


COLUMNS: tuple[tuple[str, Callable[[GroupFigures], str]], ...] = (
    ("shards", lambda f: f"{f.num_shards:,}"),
    ("failed", lambda f: f"{f.num_failed_rows:,}"),
    ("audio", lambda f: duration(f.audio_s)),
    ("device", lambda f: duration(f.device_s)),
    ("RTFx", lambda f: _text(f.rtfx, "{:,.1f}")),
    ("GPU-hours held", lambda f: _text(f.gpu_s_held and f.gpu_s_held / SECONDS_PER_HOUR, "{:,.2f}")),
    ("$ / audio hour", lambda f: _text(f.usd_per_audio_hour, "{:.4f}")),
    ("with idle time", lambda f: _text(f.usd_per_audio_hour_held, "{:.4f}")),
    ("sparsity", lambda f: _text(f.sparsity_mean, "{:.1%}")),
    ("WER", lambda f: _text(f.wer, "{:.2%}")),
    ("95 %", _interval),
)


def tables(report: Report) -> list[Table]:
    """The groups of a report as tables of text."""
    groups = (
        ("Runs", report.by_run),
        ("Days", report.by_day),
        ("Models", report.by_model),
        ("Slowest shards", report.slowest_shards),
    )
    return [table(title, figures) for title, figures in groups if figures]


def evidence(report: Report) -> list[Table]:
    """How sparse each output was, and what says that this loses no more than its budget."""
    header = ("", "levels", "budget", "because of", "its WER change", "at most", "excess here", "at most")
    rows = tuple(map(_evidence_row, report.adaptive))
    return [Table(title="Adaptive sparsity, and what it rests on", header=header, rows=rows)] if rows else []


def _evidence_row(found: Mapping[str, Any]) -> tuple[str, ...]:
    told = found["evidence"] or {}
    levels = ", ".join(f"{level} in {counted(num, 'shard')}" for level, num in found["levels"].items())
    changes = (_text(told.get(name), "{:+.2%}") for name in ("wer_change", "wer_change_bound"))
    is_bounded = found["excess_bound"] is not None  # fewer windows say nothing
    here = (_text(found[name] if is_bounded else None, "{:+.2%}") for name in ("excess", "excess_bound"))
    return shown_text(found["output"]), levels, f"{found['wer_budget']:.2%}", found["reason"], *changes, *here


SLICE_COLUMNS: tuple[tuple[str, Callable[[SliceFigures], str]], ...] = (
    ("recordings", lambda f: f"{f.num_recordings:,}"),
    ("segments", lambda f: f"{f.num_segments:,}"),
    ("speech", lambda f: duration(f.speech_s)),
    ("sparsity", lambda f: _text(f.sparsity_mean, "{:.1%}")),
    ("WER", lambda f: _text(f.wer, "{:.2%}")),
    ("95 %", _interval),
)
FOLDER_COLUMNS = (*SLICE_COLUMNS, ("failed", lambda f: f"{f.num_failed:,}"))


def slices(report: Report) -> list[Table]:
    """What is in which language, and in which folder where there are several."""
    folders = report.by_folder
    title = "Folders"
    if len(folders) > MAX_FOLDERS:
        title += f", the {MAX_FOLDERS} of {len(folders):,} with most speech"
    return [
        *([_table("Languages", report.by_language, SLICE_COLUMNS)] if report.by_language else []),
        *([_table(title, folders[:MAX_FOLDERS], FOLDER_COLUMNS)] if len(folders) > 1 else []),
    ]


def slowest_recordings(report: Report) -> list[Table]:
    """The recordings that took the device longest for their length; none where no shard names any."""
    rows = tuple(
        (
            shown_text(slow.recording_id),
            duration(slow.audio_s),
            duration(slow.device_s),
            _text(slow.rtfx, "{:,.1f}"),
        )
        for slow in report.slowest_recordings
    )
    header = ("", "audio", "device", "RTFx")
    return [Table(title="Slowest recordings", header=header, rows=rows)] if rows else []


def table(title: str, figures: Iterable[GroupFigures]) -> Table:
    """Groups as rows of text."""
    return _table(title, figures, COLUMNS)


def _table(
    title: str,
    figures: Iterable[GroupFigures | SliceFigures],
    columns: Sequence[tuple[str, Callable[[Any], str]]],
) -> Table:
    rows = tuple((shown_text(one.group), *(text(one) for _, text in columns)) for one in figures)
    return Table(title=title, header=("", *(name for name, _ in columns)), rows=rows)
