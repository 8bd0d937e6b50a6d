"""Transcribe what is new or changed in an archive since last time; each run is an output of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from jobs import cli
from jobs.options import job_request, run_options, status
from jobs.transcribe import transcribe
from pipeline.driver import archive
from pipeline.sources.locations import printable

NAMES_SHOWN = 10
OWN = {"inputs", "output", "retry_failed", "print_transcripts"}
SHOWN = ("num_recordings", "num_ok", "num_failed", "audio_s", "device_s", "wall_s")


@click.command("archive", context_settings=cli.SETTINGS, help=__doc__)
@click.argument("source")
@click.option("--output", required=True, help="Folder or URL of the archive's runs and ledger.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--retry-failed", is_flag=True, help="Transcribe again what failed before.")
def update_archive(**given: Any) -> tuple[dict[str, Any], int]:
    """Bring the archive up to date; status 1 where too many recordings failed."""
    again = given["retry_failed"]
    given |= {"inputs": (given["source"],), "retry_failed": False}
    request, run = job_request(given), run_options(given)
    if given["dry_run"]:
        found = archive.read_survey(given["output"], request, retry_failed=again)
        _log_pending(found)
        return _counts(given, found) | {"runs": [], "unfinished_run": found.unfinished_run}, cli.OK
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    done = archive.update_archive(given["output"], request, run, day=day, retry_failed=again)
    if not done.runs:
        cli.log.info("%s: nothing new", given["output"])
    sums = {name: sum(totals[name] for totals in done.runs.values()) for name in SHOWN}
    runs = [{"run": name, **totals} for name, totals in done.runs.items()]
    return _counts(given, done.survey) | sums | {"runs": runs}, status(sums, run)


update_archive.params += [option for option in transcribe.params if option.name not in OWN]


def _counts(given: dict[str, Any], found: archive.Survey) -> dict[str, Any]:
    return {
        "output": given["output"],
        "dry_run": given["dry_run"],
        "num_listed": found.num_listed,
        "num_skipped": found.num_skipped,
        "num_passed_over": found.num_passed_over,
        "num_new": len(found.new),
        "num_changed": len(found.changed),
        "num_same_content": len(found.same),
    }


def _log_pending(found: archive.Survey) -> None:
    if found.unfinished_run is not None:
        cli.log.info("%s: was stopped; the next call resumes it", found.unfinished_run)
    for kind, recordings in (("new", found.new), ("changed", found.changed)):
        for recording in recordings[:NAMES_SHOWN]:
            cli.log.info("%s: %s", kind, printable(recording.recording_id))
        if len(recordings) > NAMES_SHOWN:
            cli.log.info("%s: and %d more", kind, len(recordings) - NAMES_SHOWN)
    for row in found.same[:NAMES_SHOWN]:
        first = row["same_as"] or row["recording_id"]
        cli.log.info(
            "known content: %s is %s of %s", *map(printable, (row["recording_id"], first, row["run"]))
        )
    if len(found.same) > NAMES_SHOWN:
        cli.log.info("known content: and %d more", len(found.same) - NAMES_SHOWN)


if __name__ == "__main__":
    cli.run(update_archive, "earshard archive")
