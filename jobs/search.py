"""Search which layer, sparsity and rule are worth using, on a labelled corpus. Run again to resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from jobs import cli, options
from pipeline import config
from pipeline.config import JobOptions, JobRequest, OptionError
from pipeline.engine.options import DEFAULT_LAYER, DEFAULT_SELECTOR, SELECTORS
from pipeline.search.settings import PRESETS, Preset, grid

if TYPE_CHECKING:
    from pipeline.search.report import Outcome

GRID = ("layers", "sparsities", "selectors")


def _numbers(kind: type) -> Callable[[click.Context, click.Parameter, str | None], tuple[Any, ...] | None]:
    """A click callback that reads numbers with commas between them."""

    def read(_context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[Any, ...] | None:
        if text is None:
            return None
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError:
            name = "whole numbers" if kind is int else "numbers"
            raise OptionError(f"--{parameter.name} {text}: must be {name} with commas between") from None

    return read


def _selectors(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...] | None:
    names = None if text is None else tuple(text.split(","))
    for name in names or ():
        if name not in SELECTORS:
            raise OptionError(f"--selectors {name}: must be {' | '.join(SELECTORS)}")
    return names


@click.command(context_settings=cli.SETTINGS, help=__doc__)
@click.argument("inputs", nargs=-1, required=True, metavar="CORPUS...")
@click.option("--references", required=True, help="TSV, CSV, JSONL or Parquet with audio_filepath and text; "
              "languages and segments in it are used too.")  # fmt: skip
@click.option("--output", required=True, help="Folder or s3:// URL. Run again with the same one to resume.")
@click.option(
    "--model", default=options.DEFAULT_MODEL, show_default=True, help="Name on the hub, a folder, or demo."
)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="A question and the settings that "
              "answer it.  [default: paper, unless settings are given]")  # fmt: skip
@click.option("--layers", callback=_numbers(int), help="Scoring layers to try, e.g. 1,2.  [default: 2]")
@click.option("--sparsities", callback=_numbers(float), help="Shares of positions to drop, e.g. 0.3,0.5.")
@click.option("--selectors", callback=_selectors, help="Rules to try.  [default: attention]")
@click.option("--wer-budget", default=config.DEFAULT_BUDGET, type=click.FloatRange(min=0), show_default=True,
              help="Excess errors per dense word that sparsification may cost.")  # fmt: skip
@click.option("--by", type=click.Choice(["all", "folder", "language"]),
              help="Also a table for each group.  [default: all; language for that preset]")  # fmt: skip
@click.option(
    "--language",
    default=JobOptions.language,
    show_default=True,
    help="A code such as en; auto: by recording; each: by window.",
)
@click.option("--voice-activity", default="on", type=click.Choice(["on", "off"]), show_default=True,
              help="off: consecutive windows of 30 s.")  # fmt: skip
@options.of_engine
@click.option("--gpus-per-actor", type=click.FloatRange(min=0), help="0: on CPUs.")
@click.option("--local/--no-local", default=None, help="In one process, without Ray.  "
              "[default: up to an hour of audio, where no cluster is named]")  # fmt: skip
@click.option("--shard-hours", default=0.1, type=click.FloatRange(min=0, max=2, min_open=True),
              show_default=True, help="Hours of audio between two commits.")  # fmt: skip
def search(**given: Any) -> tuple[dict[str, Any], int]:
    """Print a table on stderr, write plots and a policy, and print what is best as one JSON line."""
    from pipeline.output.store import open_store
    from pipeline.search import report
    from pipeline.search.driver import SearchRequest, run_search
    from pipeline.search.profile import mean_times

    preset = _preset(given)
    request = SearchRequest(
        job=_job_request(given),
        references=given["references"],
        preset=preset,
        shard_hours=given["shard_hours"],
    )
    found = run_search(request, options.run_options(given))
    outcome = report.judge_search(
        found,
        question=preset.question,
        wer_budget=given["wer_budget"],
        group=_group(given["by"] or ("language" if preset.by_language else "all"), found.languages),
        parts=mean_times(found.rows),
    )
    _print(outcome)
    return report.write(open_store(given["output"]), outcome), cli.OK


def _preset(given: dict[str, Any]) -> Preset:
    named = [name for name in GRID if given[name] is not None]
    if not named:
        return PRESETS[given["preset"] or "paper"]
    if given["preset"] is not None:
        raise OptionError(f"--{named[0]}: must not be given with --preset, which has its own settings")
    if given["sparsities"] is None:
        raise OptionError(f"--{named[0]}: must come with --sparsities")
    layers, selectors = given["layers"] or (DEFAULT_LAYER,), given["selectors"] or (DEFAULT_SELECTOR,)
    return grid(layers, given["sparsities"], selectors)


def _job_request(given: dict[str, Any]) -> JobRequest:
    return JobRequest(
        inputs=given["inputs"],
        output=given["output"],
        model=given["model"],
        dtype=given["dtype"],
        references=given["references"],
        options={
            "sparsity": 0.0,
            "sparsify_layer": 1,  # every model has it
            "language": given["language"],
            "voice_activity": given["voice_activity"] == "on",
        },
    )


def _group(by: str, languages: dict[str, str]) -> Callable[[str], str] | None:
    """What names the group of a recording_id; None for no groups."""
    if by == "all":
        return None
    if by == "language":
        return lambda recording_id: languages.get(recording_id, "unknown")
    return cli.folder_of


def _print(outcome: Outcome) -> None:
    from rich.markup import escape
    from rich.table import Table

    from pipeline.search.report import remarks, search_tables

    console = cli.console(190)
    for table in search_tables(outcome):
        shown = Table(*table.header, title=table.title)
        for column in shown.columns[1:]:
            column.justify = "right"
        for row in table.rows:
            shown.add_row(*map(escape, row))
        console.print(shown)
    for line in remarks(outcome):
        console.print(line, markup=False)


if __name__ == "__main__":
    cli.run(search, "earshard search")
