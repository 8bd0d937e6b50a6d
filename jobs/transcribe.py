"""Transcribe an archive: audio in, committed Parquet with RTF, cost and WER out. Run again to resume."""

from __future__ import annotations

from typing import Any, get_args

import click

from jobs import cli, options
from jobs.options import DEFAULT_MODEL, job_request, run_options, status
from pipeline import config
from pipeline.config import JobOptions, RunOptions
from pipeline.driver.job import run_job
from pipeline.engine.options import DEFAULT_LAYER, DEFAULT_SELECTOR, OFFERED, TASKS
from pipeline.output.files import read_transcripts

NEXT = """
all of it    {output}/transcripts/*.parquet
the report   {output}/report.html
next         earshard export {output} --format srt
             earshard report {output}
             earshard transcribe FOLDER --output OUT --model base"""


@click.command(context_settings=cli.SETTINGS, help=__doc__)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--output", required=True, help="Folder or s3:// URL. Run again with the same one to resume.")
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="tiny, base, turbo …, a name on the hub, a folder or its URL, a .pt of openai-whisper, or demo.",
)
@click.option("--sparsity", default=JobOptions.sparsity, callback=options.parsed(options.parse_sparsity),
              show_default=True, metavar="adaptive|NUMBER|FILE",
              help="Share of encoder positions dropped, 0 to 0.95; adaptive or a policy file: as much as "
              "--wer-budget allows.")  # fmt: skip
@click.option("--wer-budget", type=click.FloatRange(0, config.MAX_BUDGET, min_open=True),
              help="How much worse than dense adaptive may be, in word errors per dense word.  "
              f"[default: {config.DEFAULT_BUDGET}]")  # fmt: skip
@click.option(
    "--sparsify-layer",
    type=int,
    metavar="N",
    help=f"Encoder layer after which they are dropped.  [default: {DEFAULT_LAYER}]",
)
@click.option(
    "--selector",
    type=click.Choice(OFFERED),
    help=f"The rule that chooses the positions kept.  [default: {DEFAULT_SELECTOR}]",
)
@click.option("--language", default=JobOptions.language, show_default=True,
              help="A code such as en; auto: by recording; each: by window.")  # fmt: skip
@click.option("--task", default=JobOptions.task, type=click.Choice(TASKS), show_default=True,
              help="translate: into English.")  # fmt: skip
@click.option("--initial-prompt", help="Text put before every window, e.g. names to expect.")
@click.option("--hotwords", help="Words to expect, put before every window and before its prompt.")
@click.option("--condition-on-previous-text", is_flag=True,
              help="Put what a recording's windows said before each next one.")  # fmt: skip
@click.option("--beam-size", default=1, show_default=True, metavar="N",
              help="Hypotheses side by side (beam search); 1: greedy decoding.")  # fmt: skip
@click.option("--patience", type=float, help="It goes on until N times this many ended.  [default: 1]")
@click.option("--length-penalty", type=float, help="Of beam search, 0 to 1.  [default: mean log-probability]")
@click.option("--word-timestamps", is_flag=True, help="Store when each word was said.")
@click.option("--voice-activity", default="on", type=click.Choice(["on", "off"]), show_default=True,
              help="off: consecutive windows of 30 s.")  # fmt: skip
@click.option("--channels", default=JobOptions.channels, type=click.Choice(config.CHANNELS),
              show_default=True, help="split: a row for each; auto: a row for each voice.")  # fmt: skip
@click.option("--streams", default=JobOptions.streams, type=click.Choice(config.STREAMS), show_default=True,
              help="Audio streams of a container: the first that has speech, or a row for each.")  # fmt: skip
@click.option("--references", help="TSV, CSV, JSONL or Parquet with audio_filepath and text.")
@options.of_engine
@click.option(
    "--gpus-per-actor", type=click.FloatRange(min=0), help="0: on CPUs.  [default: 1 where there are GPUs]"
)
@click.option("--local/--no-local", default=None, help="In one process, without Ray.  "
              "[default: up to an hour of audio, where no cluster is named]")  # fmt: skip
@click.option("--all-files", is_flag=True, help="Take files without a media extension too.")
@click.option(
    "--duplicates",
    type=click.Choice(get_args(config.Duplicates)),
    default="once",
    help="once: of recordings of one content one is transcribed; transcribe: every one.",
)
@click.option(
    "--shard-hours", default=JobOptions.shard_hours, show_default=True, help="Hours of audio in a shard."
)
@click.option(
    "--max-hours", default=JobOptions.max_hours, show_default=True, help="Hours taken of a recording."
)
@click.option(
    "--gpu-hour-usd",
    default=RunOptions.gpu_hour_usd,
    type=click.FloatRange(min=0),
    help="Price of a GPU-hour, to count costs with.",
    show_default=True,
)
@click.option("--max-failed", default=RunOptions.max_failed, type=click.FloatRange(0, 1), show_default=True,
              help="Share of recordings that may fail before the status is 1.")  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Run failed rows again.")
@click.option("--upgrade", is_flag=True, help="Resume an output of an older engine with this one.")
@click.option("--print-transcripts", is_flag=True, help="Print every transcript when done.")
def transcribe(**given: Any) -> tuple[dict[str, Any], int]:
    """Carry out the job that the options describe."""
    run = run_options(given)
    totals = run_job(job_request(given), run)
    if given["print_transcripts"]:
        _print_transcripts(given["output"], totals)
    return totals, status(totals, run)


def _print_transcripts(output: str, totals: dict[str, Any]) -> None:
    for row in read_transcripts(output):
        heading = click.style(f"{row['recording_id']} [{row['language'] or '-'}]", bold=True)
        click.echo(f"{heading} {row['text'] if row['status'] == 'ok' else row['error_message']}")
    rtf, rtfx, wer = (totals[name] for name in ("rtf", "rtfx", "wer"))
    speed = "no audio" if rtf is None else f"RTF {rtf:.4f} (RTFx {rtfx:.1f})"
    quality = "no references" if wer is None else f"WER {wer:.1%}"
    click.echo(
        f"{totals['audio_s']:.0f} s of audio in {totals['device_s']:.1f} s of the device: {speed}, {quality}"
    )
    click.echo(NEXT.format(output=output))


if __name__ == "__main__":
    cli.run(transcribe, "earshard transcribe")
