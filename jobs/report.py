"""Report what outputs took, cost and got right: by run, day, model and shard."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from jobs import cli
from pipeline.results import report_html
from pipeline.results.faults import Faults
from pipeline.results.page import Table as TextTable
from pipeline.results.report import GroupFigures, Report, make_report
from pipeline.results.report_source import OutputFacts, read_output
from pipeline.results.text_files import spreadsheet_safe, writing


@click.command("report", context_settings=cli.SETTINGS, help=__doc__)
@click.argument("outputs", nargs=-1, required=True, metavar="OUT...")
@click.option("--json", "json_file", help="Write everything, each shard too, as JSON.")
@click.option("--csv", "csv_file", help="Write a line for each run, day, model and shard.")
@click.option("--html", "html_file", help="Write one page with plots that needs nothing else.")
@click.option("--languages", metavar="CODE,CODE", default="", callback=cli.names,
              help="Figures by language of these alone.  [default: all]")  # fmt: skip
@click.option("--gpu-hour-usd", type=click.FloatRange(min=0),
              help="Price to count with.  [default: the one the jobs were run with]")  # fmt: skip
def report(
    outputs: tuple[str, ...],
    json_file: str | None,
    csv_file: str | None,
    html_file: str | None,
    languages: tuple[str, ...],
    gpu_hour_usd: float | None,
) -> tuple[dict[str, Any], int]:
    """Print tables on stderr and the figures as one JSON line; write the files asked for.

    Status 1 where something of an output could not be read or scored: a line names it.
    """
    faults = Faults()
    found = make_report(_read(outputs, gpu_hour_usd, faults), languages)
    _print_tables(found)
    totals = as_json(found)
    if json_file:
        shards = {"by_shard": [asdict(figures) for figures in found.by_shard]}
        _write(json_file, json.dumps(totals | shards, indent=2, ensure_ascii=False) + "\n")
    if csv_file:
        _write(csv_file, as_csv(found))
    if html_file:
        _write(html_file, report_html.render_report(found, datetime.now(UTC)))
    return totals, cli.UNFINISHED if faults.num else cli.OK


def _read(outputs: Sequence[str], gpu_hour_usd: float | None, faults: Faults) -> list[OutputFacts]:
    """The outputs that can be read; of a single one the error is the command's."""
    if len(outputs) == 1:
        return [read_output(outputs[0], gpu_hour_usd, faults)]
    found = []
    for path in outputs:
        with faults.named(path):
            found.append(read_output(path, gpu_hour_usd, faults))
    if not found:
        raise cli.WrongUse("none of the outputs can be read")
    return found


def as_json(found: Report) -> dict[str, Any]:
    """The report without its shards."""
    return {
        "outputs": list(found.outputs),
        "num_recordings": found.num_recordings,
        "num_failed": found.num_failed,
        "num_skipped": found.num_skipped,
        "num_passed_over": found.num_passed_over,
        "num_copies": found.num_copies,
        **{name: value for name, value in asdict(found.total).items() if name != "group"},
        "wer_interval": found.wer_interval,
        "errors": {failure.error_type: failure.num_rows for failure in found.failures},
        "failures": [asdict(failure) for failure in found.failures],
        "adaptive": found.adaptive,
        **{
            name: [asdict(figures) for figures in getattr(found, name)]
            for name in (
                "by_run",
                "by_day",
                "by_model",
                "by_language",
                "by_folder",
                "slowest_shards",
                "slowest_recordings",
            )
        },
    }


def as_csv(found: Report) -> str:
    """A line for each group of each kind; cells that a spreadsheet would run are quoted."""
    text = io.StringIO()
    names = [field.name for field in fields(GroupFigures)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["by", *names])
    for kind, figures in _groups(found):
        writer.writerow(
            [kind, spreadsheet_safe(figures.group), *(getattr(figures, name) for name in names[1:])]
        )
    return text.getvalue()


def _groups(found: Report) -> Iterator[tuple[str, GroupFigures]]:
    yield "total", found.total
    for kind in ("run", "day", "model", "shard"):
        yield from ((kind, figures) for figures in getattr(found, f"by_{kind}"))


def _print_tables(found: Report) -> None:
    console = cli.console(190)
    groups = report_html.tables(found)
    console.print(_shown([report_html.table("Total", [found.total]), *groups]))
    for table in report_html.slices(found):
        console.print(_shown([table]))
    for table in report_html.slowest_recordings(found):
        for name, audio, device, rtfx in table.rows:
            console.print(
                f"slow: {name}: {audio} of audio, {device} of device time, RTFx {rtfx}", markup=False
            )
    for failure in found.failures:
        console.print(f"{failure.error_type}: {failure.num_rows}", markup=False)


def _shown(tables: Sequence[TextTable]) -> Table:
    """Tables of the same columns as one, each below its title; a total needs none."""
    shown = Table()
    shown.add_column("", overflow="fold")
    for name in tables[0].header[1:]:
        shown.add_column(name, justify="right")
    for table in tables:
        if table.title != "Total":
            shown.add_row(f"[bold]{escape(table.title)}[/bold]")
        for row in table.rows:
            shown.add_row(*map(escape, row))
        shown.add_section()
    return shown


def _write(path: str, text: str) -> None:
    """Write a file whole or not at all. Raises `OutputError`."""
    with writing(Path(path)) as file:
        file.write(text)


if __name__ == "__main__":
    cli.run(report, "earshard report")
