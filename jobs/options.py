"""The options that several commands have: read, and put together."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import click

from jobs import cli
from pipeline import config
from pipeline.adaptive.policy_file import PolicyError, PolicyFile, read_policy
from pipeline.config import (
    ADAPTIVE,
    DEFAULT_BUDGET,
    JobRequest,
    OptionError,
    _require,
    check_budget,
    check_sparsity,
)
from pipeline.engine.options import DTYPES, MAX_SPARSITY

DEFAULT_MODEL = "openai/whisper-large-v3-turbo"
ROW_OPTIONS = (
    *("language", "task", "initial_prompt", "hotwords", "condition_on_previous_text"),
    *("beam_size", "patience", "length_penalty", "word_timestamps"),
    *("channels", "streams", "shard_hours", "max_hours"),
)
RUN_OPTIONS = ("batch_size", "gpus_per_actor", "gpu_hour_usd", "max_failed", "retry_failed", "local")


def parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str], Any]:
    """A click callback that reads an option by a function of `pipeline.config`."""
    return lambda _context, _parameter, text: parse(text)


def of_engine(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--batch-size`, `--dtype` and `--actors` to a command, in this order."""
    added = (
        click.option(
            "--batch-size", default="auto", callback=parsed(parse_batch_size), show_default=True,
            help="Windows decoded together.",
        ),
        click.option(
            "--dtype", default="auto", type=click.Choice(["auto", *DTYPES]), show_default=True,
            help="auto: bfloat16 on GPUs, on CPUs int8 where they are fast at it.",
        ),
        click.option(
            "--actors", default="auto", callback=parsed(parse_actors), show_default=True,
            help="auto, N or MIN-MAX processes that hold the model.",
        ),
    )  # fmt: skip
    for add in reversed(added):
        command = add(command)
    return command


def job_request(given: Mapping[str, Any]) -> JobRequest:
    """What the options ask for. Raises `OptionError` for options that do not go together."""
    sparsity = given["sparsity"]
    return JobRequest(
        inputs=given["inputs"],
        output=given["output"],
        model=given["model"],
        dtype=given["dtype"],
        references=given["references"],
        all_files=given["all_files"],
        duplicates=given["duplicates"],
        upgrade=given["upgrade"],
        policy=sparsity if isinstance(sparsity, PolicyFile) else None,
        options={
            **sparsity_options(sparsity, given["wer_budget"], given["sparsify_layer"], given["selector"]),
            "voice_activity": given["voice_activity"] == "on",
            **{name: given[name] for name in ROW_OPTIONS},
        },
    )


def run_options(given: Mapping[str, Any]) -> config.RunOptions:
    """How the options want it to be carried out."""
    min_actors, max_actors = given["actors"]
    return config.RunOptions(
        min_actors=min_actors,
        max_actors=max_actors,
        **{name: given[name] for name in RUN_OPTIONS if name in given},
    )


def status(totals: Mapping[str, Any], run: config.RunOptions) -> int:
    """The exit status of a job whose rows are all there: whether too many failed."""
    allowed = run.max_failed * totals["num_recordings"]
    return cli.OK if totals["num_failed"] <= allowed else cli.UNFINISHED


def parse_sparsity(text: str) -> float | str | PolicyFile:
    """Read `--sparsity adaptive|NUMBER|FILE`. Raises `OptionError`."""
    if text == ADAPTIVE:
        return text
    try:
        value = float(text)
    except ValueError:
        return _read_policy(text)
    check_sparsity(value)
    return value


def _read_policy(text: str) -> PolicyFile:
    if not (text.endswith(".json") or os.path.exists(text)):
        allowed = f"{ADAPTIVE}, a number from 0 to {MAX_SPARSITY}, or a policy file"
        raise OptionError(f"--sparsity {text}: must be {allowed}")
    try:
        return read_policy(text)
    except PolicyError as error:
        raise OptionError(f"--sparsity {error}") from error


def sparsity_options(
    sparsity: float | str | PolicyFile, wer_budget: float | None, layer: int | None, selector: str | None
) -> dict[str, Any]:
    """The fields of `JobOptions` that say how sparse a job is; None: not asked for.

    Raises `OptionError` for what does not go together.
    """
    if not isinstance(sparsity, float):
        for name, value in (("sparsify-layer", layer), ("selector", selector)):
            _require(value is None, name, value, "left out unless --sparsity is a number")
    if isinstance(sparsity, PolicyFile):
        sparsity = f"policy:{sparsity.digest()}"
    check_budget(sparsity, DEFAULT_BUDGET if isinstance(sparsity, str) and wer_budget is None else wer_budget)
    if sparsity == 0.0:
        for name, value in (("sparsify-layer", layer), ("selector", selector)):
            _require(value is None, name, value, "left out at --sparsity 0, which drops nothing")
    given = {"wer_budget": wer_budget, "sparsify_layer": layer, "selector": selector}
    return {"sparsity": sparsity, **{name: value for name, value in given.items() if value is not None}}


def parse_actors(text: str) -> tuple[int | None, int | None]:
    """Read `--actors auto|N|MIN-MAX` as (min, max); (None, None) is auto. Raises `OptionError`."""
    if text == "auto":
        return None, None
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    low = int(match[1]) if match else 0
    high = int(match[2]) if match and match[2] else low
    _require(match is not None and 1 <= low <= high, "actors", text, "auto, N or MIN-MAX, from 1 on")
    return low, high


def parse_batch_size(text: str) -> int | None:
    """Read `--batch-size auto|N`; None is auto. Raises `OptionError`."""
    if text == "auto":
        return None
    _require(text.isdecimal() and int(text) >= 1, "batch-size", text, "auto or a number from 1 on")
    return int(text)
