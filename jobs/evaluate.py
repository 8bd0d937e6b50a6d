"""Score the committed output of a job against references, without a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from rich.table import Table

from jobs import cli
from pipeline.metrics import wer
from pipeline.results.evaluation import Evaluation, Truth, evaluate, score_recordings
from pipeline.results.faults import Faults
from pipeline.results.recordings import WholeRecording, read_joined, read_planned
from pipeline.sources.locations import printable
from pipeline.sources.references import read_truths

GROUPS: dict[str, Callable[[str], str]] = {
    "all": lambda _recording_id: "all",
    "folder": cli.folder_of,
}
NAMES_SHOWN = 5


@click.command("evaluate", context_settings=cli.SETTINGS, help=__doc__)
@click.argument("output")
@click.option("--references", help="TSV, CSV, JSONL or Parquet with audio_filepath and text; languages and "
              "segments in it are scored too.  [default: those of the job]")  # fmt: skip
@click.option("--by", default="all", type=click.Choice(list(GROUPS)), show_default=True,
              help="folder: a line for each folder of the input.")  # fmt: skip
def evaluate_output(output: str, references: str | None, by: str) -> tuple[dict[str, Any], int]:
    """Print a table on stderr, and the figures as one JSON line.

    Status 1 where something could not be read or scored: a line names it.
    """
    faults = Faults()
    recordings = list(read_joined(output, read_planned(output), faults))
    truths = _given_truths(references, recordings) if references else _stored_truths(recordings)
    if not truths:
        raise cli.WrongUse(_no_truths(output, references, recordings))
    scored = score_recordings(recordings, truths, faults)
    groups = evaluate(scored, GROUPS[by])
    _print_table(groups)
    whole = evaluate(scored, GROUPS["all"])[0].as_dict() if scored else {"group": "all", "num_recordings": 0}
    totals = {
        "output": output,
        "normaliser": wer.NORMALISER,
        **{name: value for name, value in whole.items() if name != "group"},
        "num_not_scored": len(truths) - len(scored),
        "num_faults": faults.num,
        "groups": [group.as_dict() for group in groups],
    }
    return totals, cli.UNFINISHED if faults.num else cli.OK


def _stored_truths(recordings: list[WholeRecording]) -> dict[str, Truth]:
    return {one.recording_id: Truth(text=one.reference) for one in recordings if one.reference is not None}


def _given_truths(references: str, recordings: list[WholeRecording]) -> dict[str, Truth]:
    """Truths by recording_id, for the recordings of the output that the file names."""
    truths = read_truths(references, {one.recording_id: one.uri for one in recordings})
    return {
        recording_id: Truth(
            text=truth["text"],
            language=truth.get("language"),
            segment_starts_s=tuple(s["start"] for s in truth["segments"]) if truth.get("segments") else None,
        )
        for recording_id, truth in truths.items()
    }


def _no_truths(output: str, references: str | None, recordings: list[WholeRecording]) -> str:
    """Why there is nothing to score, with the names that were looked for."""
    if not recordings:
        return f"{output}: no recording is finished"
    if references is None:
        return f"{output}: has no references of its own; give some with --references"
    ids = [printable(one.recording_id) for one in recordings]
    shown = ", ".join(ids[:NAMES_SHOWN]) + (", …" if len(ids) > NAMES_SHOWN else "")
    looked_for = f"{shown}, or as paths such as {printable(recordings[0].uri)}"
    return f"{references}: no line names a recording of {output}; looked for: {looked_for}"


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
    cli.console(110).print(table)


if __name__ == "__main__":
    cli.run(evaluate_output, "earshard evaluate")
