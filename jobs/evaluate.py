"""Score the committed output of a job against references, without a model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from jobs import cli
from pipeline.metrics import wer
from pipeline.output.files import read_transcripts
from pipeline.results.evaluation import Evaluation, Truth, evaluate, score_rows
from pipeline.sources.references import read_truths

GROUPS: dict[str, Callable[[str], str]] = {
    "all": lambda _recording_id: "all",
    "folder": lambda recording_id: recording_id.rpartition("/")[0] or ".",
}


@click.command("evaluate", context_settings=cli.SETTINGS, help=__doc__)
@click.argument("output")
@click.option("--references", help="TSV, CSV, JSONL or Parquet with audio_filepath and text; languages and "
              "segments in it are scored too.  [default: those of the job]")  # fmt: skip
@click.option("--by", default="all", type=click.Choice(list(GROUPS)), show_default=True,
              help="folder: a line for each folder of the input.")  # fmt: skip
def evaluate_output(output: str, references: str | None, by: str) -> tuple[dict[str, Any], int]:
    """Print a table on stderr, and the figures as one JSON line."""
    rows = list(read_transcripts(output))
    truths = _given_truths(references, rows) if references else _stored_truths(rows)
    if not truths:
        raise cli.WrongUse(f"{output}: has no references of its own; give some with --references")
    scored = score_rows(rows, truths)
    groups = evaluate(scored, GROUPS[by])
    _print_table(groups)
    whole = evaluate(scored, GROUPS["all"])[0].as_dict() if scored else {"group": "all", "num_recordings": 0}
    totals = {
        "output": output,
        "normaliser": wer.NORMALISER,
        **{name: value for name, value in whole.items() if name != "group"},
        "num_not_scored": len(truths) - len(scored),
        "groups": [group.as_dict() for group in groups],
    }
    return totals, cli.OK


def _stored_truths(rows: list[dict[str, Any]]) -> dict[str, Truth]:
    return {row["recording_id"]: Truth(text=row["reference"]) for row in rows if row["reference"] is not None}


def _given_truths(references: str, rows: list[dict[str, Any]]) -> dict[str, Truth]:
    """Truths by recording_id, for the recordings of the output that the file names."""
    truths = read_truths(references, {row["recording_id"]: row["uri"] for row in rows})
    return {
        recording_id: Truth(
            text=truth["text"],
            language=truth.get("language"),
            segment_starts_s=tuple(s["start"] for s in truth["segments"]) if truth.get("segments") else None,
        )
        for recording_id, truth in truths.items()
    }


def _print_table(groups: list[Evaluation]) -> None:
    table = Table("group", "recordings", "words", "WER", "95 %", "language", "start error", "text on empty")
    for group in groups:
        wer, interval = group.counts.wer, group.wer_interval
        table.add_row(
            group.group,
            str(group.num_recordings),
            str(group.num_words),
            "-" if wer is None else f"{wer:.2%}",
            "-" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}",
            "-" if group.language_accuracy is None else f"{group.language_accuracy:.1%}",
            "-" if group.start_error_median_s is None else f"{group.start_error_median_s:.2f} s",
            f"{group.num_false_texts} of {group.num_empty_references}" if group.num_empty_references else "-",
        )
    Console(file=sys.stderr, width=None if sys.stderr.isatty() else 110).print(table)


if __name__ == "__main__":
    cli.run(evaluate_output, "earshard evaluate")
