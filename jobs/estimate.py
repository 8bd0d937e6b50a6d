"""Estimate what a transcription will take: hours of audio, failures, device time, money, wall time, disk."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from click.core import ParameterSource
from rich.table import Table

from jobs import cli
from jobs.options import job_request, run_options
from jobs.transcribe import transcribe
from pipeline.config import JobRequest
from pipeline.driver import estimate
from pipeline.driver.estimate import Estimate, Survey, read_beginnings
from pipeline.driver.rate import Rate, rate_here, rate_of_output, told_rate
from pipeline.metrics.cost import SECONDS_PER_HOUR
from pipeline.wording import counted, duration

# Options of `transcribe` that say how a job is carried out, and change nothing that is estimated.
OTHER = {
    "output",
    "references",
    "print_transcripts",
    "retry_failed",
    "max_failed",
    "actors",
    "local",
    "upgrade",
}
# Those that say what is read; all others say how it is transcribed, and count only where that is timed here.
READING = {
    "inputs",
    "channels",
    "streams",
    "voice_activity",
    "shard_hours",
    "max_hours",
    "all_files",
    "duplicates",
    "gpu_hour_usd",
}
MINUTES = click.FloatRange(min=0, min_open=True)


@click.command("estimate", context_settings=cli.SETTINGS, help=__doc__)
@click.option("--from", "earlier", help="Output of an earlier job: its shards tell what speech takes.")
@click.option("--rtfx", type=click.FloatRange(min=0, min_open=True),
              help="Seconds of audio that a device transcribes in a second.")  # fmt: skip
@click.option("--sample-minutes", default=30.0, type=MINUTES, show_default=True,
              help="Audio that is really decoded.")  # fmt: skip
@click.option("--timed-minutes", default=16.0, type=MINUTES, show_default=True,
              help="Audio of it that is transcribed here, if that takes no more than a minute.")  # fmt: skip
def estimate_inputs(**given: Any) -> tuple[dict[str, Any], int]:
    """Print a table on stderr, and the figures as one JSON line."""
    earlier, rtfx = given["earlier"], given["rtfx"]
    if earlier is not None and rtfx is not None:
        raise cli.WrongUse("--from and --rtfx exclude each other")
    if earlier is not None or rtfx is not None:
        _refuse_untimed("--from" if rtfx is None else "--rtfx")
    request = job_request({**given, "output": "", "references": None, "upgrade": False})
    found = estimate.survey_inputs(request, sample_s=60 * given["sample_minutes"])
    rate = _rate(given, request, found)
    outcome = estimate.estimate_job(found, rate)
    _print(outcome)
    return outcome.as_dict(), cli.OK


def _refuse_untimed(told: str) -> None:
    """Raise `WrongUse` for options that change nothing where the rate is told."""
    context = click.get_current_context()
    timed = [option.name for option in transcribe.params if option.name not in OTHER | READING]
    for name in filter(None, [*timed, "timed_minutes"]):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise cli.WrongUse(f"--{name.replace('_', '-')} changes nothing beside {told}: leave it out")


estimate_inputs.params += [option for option in transcribe.params if option.name not in OTHER]


def _rate(given: dict[str, Any], request: JobRequest, found: Survey) -> Rate | None:
    if given["rtfx"] is not None:
        return told_rate(given["rtfx"], given["gpu_hour_usd"])
    if given["earlier"] is not None:
        source = click.get_current_context().get_parameter_source("gpu_hour_usd")
        is_given = source is not ParameterSource.DEFAULT
        return rate_of_output(given["earlier"], given["gpu_hour_usd"] if is_given else None)
    if not found.sampled:
        return None
    run, most_s = run_options({**given, "actors": (1, 1)}), 60 * given["timed_minutes"]
    return rate_here(partial(read_beginnings, found, request), request, run, most_s=most_s)


def _print(found: Estimate) -> None:
    table = Table("", "estimate")
    for name, value in _lines(found):
        table.add_row(name, value)
    cli.console(110).print(table)


def _lines(found: Estimate) -> list[tuple[str, str]]:
    lengths, sample, rate = found.lengths, found.sample, found.rate
    known = f"{lengths.num_by_header:,} by header or manifest, {lengths.num_by_bytes:,} by bytes"
    decoded = f"{counted(sample.num_recordings, 'recording')}, {60 * sample.decoded_hours:.1f} min"
    failed = ", ".join(f"{number} {kind}" for kind, number in sample.failures.items())
    lines = [
        ("recordings", f"{found.num_recordings:,} in {counted(found.num_shards, 'shard')}"),
        ("files skipped", f"{found.num_skipped:,}"),
        ("hours of audio", f"{lengths.hours:,.2f} ({known})"),
        ("decoded as a sample", f"{decoded}; the guess was off by {_share(lengths.guess_error)}"),
        ("failed in the sample", failed or "none"),
        ("speech", f"{_share(sample.speech_share)} of the sample"),
        ("rate", "unknown: give --rtfx or --from" if rate is None else f"{rate.basis}, {rate.device}"),
        ("device time", _hours(found.device_hours)),
        ("cost", _number(found.cost_usd, "${:,.2f}")),
        ("output", _number(None if found.disk_bytes is None else found.disk_bytes / 1e6, "{:,.2f} MB")),
    ]
    wall = found.wall_hours or {}
    return lines + [(f"with {counted(number, 'device')}", _hours(hours)) for number, hours in wall.items()]


def _hours(value: float | None) -> str:
    return duration(None if value is None else value * SECONDS_PER_HOUR)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:z.1%}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


if __name__ == "__main__":
    cli.run(estimate_inputs, "earshard estimate")
