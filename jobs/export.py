"""Write committed transcripts as subtitles, text, tables or manifests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from jobs import cli
from pipeline.results import exports
from pipeline.results.faults import Faults
from pipeline.results.recordings import WholeRecording, read_joined, read_planned


@click.command("export", context_settings=cli.SETTINGS, help=__doc__)
@click.argument("out")
@click.option("--format", "kind", required=True, type=click.Choice(exports.FORMATS),
              help="srt, vtt, txt, tsv: a file for each recording; jsonl, nemo: one file.")  # fmt: skip
@click.option("--output", help="Folder to write to.  [default: OUT/export]")
def export(out: str, kind: str, output: str | None) -> tuple[dict[str, Any], int]:
    """Write what is finished; status 1 where recordings are not, or could not be written."""
    folder = output or os.path.join(out, "export")
    planned, faults = read_planned(out), Faults()
    statuses: list[str] = []
    recordings = _noting(read_joined(out, planned, faults), statuses)
    if kind in exports.FILES:
        num_written = exports.write_files(folder, kind, recordings, faults)
    else:
        num_written = exports.write_lines(folder, kind, recordings, planned.members, faults)
    num_unfinished = len(planned.num_parts) - len(statuses)
    totals = {
        "output": os.path.abspath(folder),
        "format": kind,
        "num_recordings": len(planned.num_parts),
        "num_written": num_written,
        "num_failed": statuses.count("failed"),
        "num_unfinished": num_unfinished,
        "num_faults": faults.num,
    }
    return totals, cli.UNFINISHED if num_unfinished or faults.num else cli.OK


def _noting(recordings: Iterator[WholeRecording], statuses: list[str]) -> Iterator[WholeRecording]:
    for recording in recordings:
        statuses.append(recording.status)
        yield recording


if __name__ == "__main__":
    cli.run(export, "earshard export")
