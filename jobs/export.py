"""Write committed transcripts as subtitles, text, tables or manifests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click

from jobs import cli
from pipeline.results import exports, player
from pipeline.results.faults import Faults
from pipeline.results.recordings import WholeRecording, read_joined, read_plan_rows, read_planned
from pipeline.results.turns import as_conversation

HTML = "html"
EMBED_MB = 20.0
FORMATS = (*exports.FORMATS, HTML)


def _channel_names(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    if not all(names) or len(set(names)) < len(names):
        raise click.BadParameter(f"{text!r}: must be different names with commas between them")
    return names


@click.command("export", context_settings=cli.SETTINGS, help=__doc__)
@click.argument("out")
@click.option("--format", "kind", required=True, type=click.Choice(FORMATS),
              help="srt, vtt, txt, tsv, html: a file for each recording; jsonl, nemo: one file.")  # fmt: skip
@click.option("--merge-channels", is_flag=True,
              help="Several channels as a conversation: turns, each with its speaker.")  # fmt: skip
@click.option("--channel-names", metavar="NAME,NAME", default="", callback=_channel_names,
              help="What the channels are called.  [default: channel 0,channel 1]")  # fmt: skip
@click.option("--one-page", is_flag=True, help="html: one page of all recordings.")
@click.option("--audio", type=click.Choice(["link", "embed", "none"]),
              help="html: play the file where it lies, or a copy in the page.  [default: link]")  # fmt: skip
@click.option("--embed-mb", type=click.FloatRange(min=0),
              help="html: with --audio embed, recordings of more are linked.  [default: 20]")  # fmt: skip
@click.option("--output", help="Folder to write to.  [default: OUT/export]")
def export(
    out: str,
    kind: str,
    output: str | None,
    merge_channels: bool,
    channel_names: tuple[str, ...],
    **of_pages: Any,
) -> tuple[dict[str, Any], int]:
    """Write what is finished; status 1 where recordings are not, or could not be written."""
    if kind != HTML and any(of_pages.values()):
        raise cli.WrongUse("--one-page, --audio and --embed-mb are for --format html")
    folder = output or os.path.join(out, "export")
    planned, faults = read_planned(out), Faults()
    statuses: list[str] = []
    joined = (replace(one, channel_names=channel_names) for one in read_joined(out, planned, faults))
    recordings = _noting(map(as_conversation, joined) if merge_channels else joined, statuses)
    if kind == HTML:
        num_written = _write_pages(out, folder, recordings, faults, **of_pages)
    elif kind in exports.FILES:
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


def _write_pages(
    out: str,
    folder: str,
    recordings: Iterator[WholeRecording],
    faults: Faults,
    *,
    one_page: bool,
    audio: str | None,
    embed_mb: float | None,
) -> int:
    max_bytes = int(1e6 * (EMBED_MB if embed_mb is None else embed_mb))
    played = player.Audio(how=audio or "link", max_bytes=max_bytes, rows=read_plan_rows(out))
    if one_page:
        return player.write_one_page(folder, recordings, played, faults, os.path.abspath(out))
    return player.write_pages(folder, recordings, played, faults)


def _noting(recordings: Iterator[WholeRecording], statuses: list[str]) -> Iterator[WholeRecording]:
    for recording in recordings:
        statuses.append(recording.status)
        yield recording


if __name__ == "__main__":
    cli.run(export, "earshard export")
