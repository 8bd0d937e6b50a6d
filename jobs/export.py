"""Write committed transcripts as subtitles, text, tables, manifests, pages or data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import click
from click.core import ParameterSource

from jobs import cli
from pipeline.results import exports, player
from pipeline.results.clips import ClipRules
from pipeline.results.faults import Faults
from pipeline.results.recordings import (
    WholeRecording,
    in_languages,
    read_joined,
    read_plan_rows,
    read_planned,
)
from pipeline.results.turns import as_conversation
from pipeline.wording import counted

HTML, DATASET, WEBDATASET = "html", "dataset", "webdataset"
FORMATS = (*exports.FORMATS, HTML, DATASET, WEBDATASET)
OF_CHANNELS = ("merge_channels", "channel_names")
OF_PAGES = ("one_page", "audio", "embed_mb")
RULES = tuple(field.name for field in fields(ClipRules))
OF_DATASETS = ("codec", *(name for name in RULES if name != "languages"))


@click.command("export", context_settings=cli.SETTINGS, help=__doc__)
@click.argument("out")
@click.option("--format", "kind", required=True, type=click.Choice(FORMATS),
              help="srt, vtt, txt, tsv, html: a file for each recording; jsonl, nemo: one file; "
              "dataset, webdataset: audio and text of segments, as Parquet or tar.")  # fmt: skip
@click.option("--merge-channels", is_flag=True,
              help="Several channels as a conversation: turns, each with its speaker.")  # fmt: skip
@click.option("--channel-names", metavar="NAME,NAME", default="", callback=cli.names,
              help="What the channels are called.  [default: channel 0,channel 1]")  # fmt: skip
@click.option("--one-page", is_flag=True, help="html: one page of all recordings.")
@click.option("--audio", type=click.Choice(["link", "embed", "none"]), default="link", show_default=True,
              help="html: play the file where it lies, or a copy in the page.")  # fmt: skip
@click.option("--embed-mb", type=click.FloatRange(min=0), default=20.0, show_default=True,
              help="html: with --audio embed, recordings of more are linked.")  # fmt: skip
@click.option("--codec", type=click.Choice(["flac", "opus"]), default="flac", show_default=True,
              help="dataset: how audio is stored.")  # fmt: skip
@click.option("--target-s", type=click.FloatRange(0, 30), default=ClipRules.target_s, show_default=True,
              help="dataset: join neighbours up to this length; 0: segments stay alone.")  # fmt: skip
@click.option("--min-s", type=click.FloatRange(min=0), default=ClipRules.min_s, show_default=True,
              help="dataset: leave out what is shorter.")  # fmt: skip
@click.option("--max-s", type=click.FloatRange(min=0), default=ClipRules.max_s, show_default=True,
              help="dataset: leave out what is longer.")  # fmt: skip
@click.option("--min-logprob", type=float, default=ClipRules.min_logprob, show_default=True,
              help="dataset: leave out what is less sure.")  # fmt: skip
@click.option("--max-compression", type=float, default=ClipRules.max_compression, show_default=True,
              help="dataset: leave out what repeats itself more.")  # fmt: skip
@click.option("--with-fallback", is_flag=True, help="dataset: take what was decoded again, too.")
@click.option("--languages", metavar="CODE,CODE", default="", callback=cli.names,
              help="Take segments in these alone; nemo: recordings.  [default: all]")  # fmt: skip
@click.option("--output", help="Folder to write to.  [default: OUT/export, of a data set OUT/dataset]")
@click.pass_context
def export(
    context: click.Context, out: str, kind: str, output: str | None, **given: Any
) -> tuple[dict[str, Any], int]:
    """Write what is finished; status 1 where recordings are not, or could not be written."""
    _refuse_options_of_others(context, kind)
    if kind in (DATASET, WEBDATASET):
        return _write_dataset(out, kind, output or os.path.join(out, "dataset"), given)
    folder = output or os.path.join(out, "export")
    found = _Found(out)
    recordings = _shaped(found.recordings(), kind, given)
    if kind == HTML:
        num_written = _write_pages(out, folder, recordings, found.faults, given)
    elif kind in exports.FILES:
        num_written = exports.write_files(folder, kind, recordings, found.faults)
    else:
        num_written = exports.write_lines(folder, kind, recordings, found.planned.members, found.faults)
    return found.totals(folder, kind, num_written)


def _refuse_options_of_others(context: click.Context, kind: str) -> None:
    """Raise `WrongUse` for an option that does nothing for this format."""
    is_dataset = kind in (DATASET, WEBDATASET)
    of_pages = () if kind == HTML else OF_PAGES
    for name in (*of_pages, *(OF_CHANNELS if is_dataset else OF_DATASETS)):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise cli.WrongUse(f"--{name.replace('_', '-')} does nothing for --format {kind}")


@dataclass
class _Found:
    """The recordings of an output while they are exported, and what came of them."""

    out: str

    def __post_init__(self) -> None:
        self.planned, self.faults = read_planned(self.out), Faults()
        self._statuses: list[str] = []

    def recordings(self) -> Iterator[WholeRecording]:
        """The finished ones."""
        for one in read_joined(self.out, self.planned, self.faults):
            self._statuses.append(one.status)
            yield one

    def totals(self, folder: str, kind: str, num_written: int) -> tuple[dict[str, Any], int]:
        """The JSON line, and the exit status."""
        num_unfinished = len(self.planned.num_parts) - len(self._statuses)
        if num_unfinished:
            cli.log.warning("%s not finished, and not exported", counted(num_unfinished, "recording"))
        totals = {
            "output": os.path.abspath(folder),
            "format": kind,
            "num_recordings": len(self.planned.num_parts),
            "num_written": num_written,
            "num_failed": self._statuses.count("failed"),
            "num_unfinished": num_unfinished,
            "num_faults": self.faults.num,
        }
        return totals, cli.UNFINISHED if num_unfinished or self.faults.num else cli.OK


def _shaped(
    recordings: Iterator[WholeRecording], kind: str, given: dict[str, Any]
) -> Iterator[WholeRecording]:
    """Recordings in the languages and the form that were asked for."""
    for one in recordings:
        kept = in_languages(one, given["languages"]) if given["languages"] else one
        # a manifest's text is of the whole audio
        if kept is None or (kind == "nemo" and len(kept.segments) < len(one.segments)):
            continue
        named = replace(kept, channel_names=given["channel_names"])
        yield as_conversation(named) if given["merge_channels"] else named


def _write_pages(
    out: str, folder: str, recordings: Iterator[WholeRecording], faults: Faults, given: dict[str, Any]
) -> int:
    max_bytes = int(1e6 * given["embed_mb"])
    played = player.Audio(how=given["audio"], max_bytes=max_bytes, rows=read_plan_rows(out))
    if given["one_page"]:
        return player.write_one_page(folder, recordings, played, faults, os.path.abspath(out))
    return player.write_pages(folder, recordings, played, faults)


def _write_dataset(out: str, kind: str, folder: str, given: dict[str, Any]) -> tuple[dict[str, Any], int]:
    from pipeline.driver.dataset import DatasetRequest, write_dataset

    counts = write_dataset(
        DatasetRequest(
            output=out,
            folder=folder,
            rules=ClipRules(**{name: given[name] for name in RULES}),
            codec=given["codec"],
            container="parquet" if kind == DATASET else "tar",
        )
    )
    left = {
        name.removeprefix("left: "): num for name, num in sorted(counts.items()) if name.startswith("left: ")
    }
    totals = {
        "output": os.path.abspath(folder),
        "format": kind,
        "num_clips": counts["clips"],
        "num_segments_taken": counts["taken"],
        "num_segments_left": sum(left.values()),
        "left": left,
        "num_faults": counts["faults"],
    }
    return totals, cli.UNFINISHED if counts["faults"] else cli.OK


if __name__ == "__main__":
    cli.run(export, "earshard export")
