"""List the passages of an output that are most likely wrong, with the time to jump to."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import click

from jobs import cli
from pipeline.results import review_files
from pipeline.results.faults import Faults
from pipeline.results.recordings import WholeRecording, read_joined, read_plan_rows, read_planned
from pipeline.results.review import Passage, passages, ranked
from pipeline.results.review_curve import Curve, Known, curve, fit, halves, known
from pipeline.sources.references import read_truths

LIMIT = 500
FORMATS = ("html", "csv", "parquet")


@click.command("review", context_settings=cli.SETTINGS, help=__doc__)
@click.argument("out")
@click.option("--format", "kind", default="html", type=click.Choice(FORMATS), show_default=True)
@click.option("--output", help="File to write.  [default: OUT/review.FORMAT]")
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True,
              help="Passages to list, the most doubtful first.")  # fmt: skip
@click.option("--references", help="Say which share of the word errors is found in which share of the audio.")
@click.option("--fit", "is_fitted", is_flag=True,
              help="Fit the ranking to half of the recordings, and judge it by the other.")  # fmt: skip
def review(
    out: str, kind: str, output: str | None, limit: int, references: str | None, is_fitted: bool
) -> tuple[dict[str, Any], int]:
    """Write the list; status 1 where something could not be read."""
    if is_fitted and not references:
        raise cli.WrongUse("--fit needs --references")
    faults, path = Faults(), output or os.path.join(out, f"review.{kind}")
    recordings = list(read_joined(out, read_planned(out), faults))
    found: list[Passage] = []
    for recording in recordings:
        with faults.named(recording.recording_id):
            found += passages(recording)
    chosen = ranked(found)[:limit]
    review_files.WRITERS[kind](path, chosen, read_plan_rows(out))
    totals = {
        "output": os.path.abspath(path),
        "format": kind,
        "num_segments": len(found),
        "num_listed": len(chosen),
        "hours": math.fsum(one.end_s - one.start_s for one in found) / 3600,
        "hours_listed": math.fsum(one.end_s - one.start_s for one in chosen) / 3600,
        "num_faults": faults.num,
    }
    if references:
        totals |= _judged(recordings, references, is_fitted)
    return totals, cli.UNFINISHED if faults.num else cli.OK


def _judged(recordings: Sequence[WholeRecording], references: str, is_fitted: bool) -> dict[str, Any]:
    """What the ranking finds of the errors that references show."""
    truths = read_truths(references, {one.recording_id: one.uri for one in recordings})
    judged = [
        known(one, truths[one.recording_id]["text"])
        for one in recordings
        if one.recording_id in truths and one.text is not None
    ]
    if not judged:
        raise cli.WrongUse(f"{references}: no line names a recording of the output")
    if not is_fitted:
        return _as_dict(curve(judged))
    return _fitted(*halves(judged))


def _fitted(first: Sequence[Known], second: Sequence[Known]) -> dict[str, Any]:
    if not any(one.errors for one in first) or not second:
        raise cli.WrongUse("--fit: there are too few recordings with references to part them in two")
    weights = fit(first)
    return {"weights": weights, **_as_dict(curve(second, weights))}


def _as_dict(found: Curve) -> dict[str, Any]:
    return {
        "num_errors": found.num_errors,
        "found_by_share_of_audio": {f"{share:g}": round(value, 4) for share, value in found.found.items()},
        "audio_share_of_half_the_errors": found.half_share,
        "listening_share_of_half_the_errors": found.half_listening_share,
    }


if __name__ == "__main__":
    cli.run(review, "earshard review")
