"""Measure the engine's speed or accuracy, beside its peers if asked, or the speed of the data plane."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs import cli

if TYPE_CHECKING:
    from pipeline.results.page import Table

CASES = ("tiny-b4", "tiny-b8", "small-b1")


@click.command("benchmark", context_settings=cli.SETTINGS, help=__doc__)
@click.option("--suite", default="cpu", type=click.Choice(["cpu", "gpu", "mlperf"]), show_default=True,
              help="gpu: tiny to large-v3, dense and sparse, with a profile. mlperf: windows a second beside "
              "MLPerf's.")  # fmt: skip
@click.option("--peers", is_flag=True, help="Also time the other engines that are installed.")
@click.option("--check", is_flag=True,
              help="Compare texts on the bundled model instead of times.")  # fmt: skip
@click.option("--plane", is_flag=True,
              help="Measure the data plane instead: Ray, decoding, voice activity.")  # fmt: skip
@click.option("--accuracy", "manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Measure word error rates instead, over JSON lines with audio_filepath, text, lang, "
              "duration.")  # fmt: skip
@click.option("--no-speech", "noises", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Measure how often text is invented instead, over JSON lines of recordings in which "
              "nobody speaks (lang zxx) and sounds made here.")  # fmt: skip
@click.option("--model", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="The folder of the model of --accuracy or --no-speech.")  # fmt: skip
@click.option("--output", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of --accuracy or --no-speech, and named so; the same again resumes.")  # fmt: skip
@click.option("--ask-languages", is_flag=True,
              help="Of --accuracy: every program finds the languages itself.")  # fmt: skip
@click.option("--cases", default=",".join(CASES), show_default=True, help="Which of the CPU suite.")
@click.option("--contenders", help="Only these, by name, with commas between.  [default: all]")
@click.option("--rounds", "num_rounds", default=5, type=click.IntRange(min=1), show_default=True)
@click.option("--tokens", "num_tokens", default=60, type=click.IntRange(1, 440), show_default=True,
              help="Tokens per window; the end token is suppressed.")  # fmt: skip
@click.option("--models", help="Which of --suite gpu or mlperf, with commas between.  [default: all]")
@click.option("--batches", help="Batch sizes of --suite mlperf, with commas.  [default: 8; GPU: 16 to 256]")
@click.option("--budget-s", default=420.0, type=click.FloatRange(min=1.0), show_default=True,
              help="Seconds for --suite gpu or mlperf; what does not fit is named.")  # fmt: skip
@click.option("--json", "json_file", help="Write --suite gpu or mlperf there, anew after every case.")
@click.option("--threads", default=1, type=click.IntRange(min=1), show_default=True)
@click.option("--features", default="outside", type=click.Choice(["outside", "inside"]), show_default=True,
              help="Log-mel features made beforehand, for all, or by each contender and timed.")  # fmt: skip
@click.option("--hours", default=4.0, type=click.FloatRange(min=0.5), show_default=True,
              help="Hours of audio in each archive of --plane.")  # fmt: skip
@click.option("--loads", help="Only these of --plane, by name, with commas between.  [default: all]")
@click.option("--device-rtfx", type=click.FloatRange(min=1.0),
              help="How fast the device of --plane is.  [default: 400 for each core that reads]")  # fmt: skip
def benchmark(**given: Any) -> tuple[dict[str, Any], int]:
    """Print a table on stderr, and all that was measured as one JSON line."""
    _refuse_idle_options(given)
    if given["plane"]:
        return {"suite": "plane", **_plane(given)}, cli.OK
    if given["manifest"]:
        return {"suite": "accuracy", **_accuracy(given)}, cli.OK
    if given["noises"]:
        return {"suite": "no-speech", **_no_speech(given)}, cli.OK
    import torch

    torch.set_num_threads(given["threads"])
    if given["suite"] != "cpu":
        return _random_weights(given), cli.OK
    return (_check(given) if given["check"] else _cpu(given)), cli.OK


# Options that only one way of running takes.
ONLY_PLANE = ("hours", "loads", "device_rtfx")
ONLY_ENGINE = ("peers", "cases", "contenders", "features", "threads")
ONLY_SUITES = ("models", "budget_s", "json_file")
ONLY_ACCURACY = ("model", "output", "ask_languages")
NOT_ACCURACY = (
    "cases", "features", "threads", "num_rounds", "num_tokens", "batches", *ONLY_PLANE, *ONLY_SUITES
)  # fmt: skip
NOT_CHECK = ("cases", "num_rounds", "num_tokens", "features")


def _refuse_idle_options(given: dict[str, Any]) -> None:
    """Raise `WrongUse` for an option that would do nothing."""
    modes = [name for name in ("plane", "check") if given[name]] + ["accuracy"] * bool(given["manifest"])
    modes += ["no-speech"] * bool(given["noises"])
    modes += [f"suite {given['suite']}"] if given["suite"] != "cpu" else []
    if len(modes) > 1:
        raise cli.WrongUse(f"--{modes[0]} and --{modes[1]} exclude each other")
    mode = modes[0] if modes else "suite cpu"
    idle = {
        "plane": (*ONLY_ENGINE, "num_tokens", *ONLY_SUITES, "batches"),
        "check": (*NOT_CHECK, *ONLY_PLANE, *ONLY_SUITES, "batches"),
        "suite gpu": (*ONLY_ENGINE, "num_rounds", "num_tokens", *ONLY_PLANE, "batches"),
        "suite mlperf": ("peers", "cases", "contenders", "features", "num_rounds", "num_tokens", *ONLY_PLANE),
        "suite cpu": (*ONLY_PLANE, *ONLY_SUITES, "batches"),
        "accuracy": NOT_ACCURACY,
        "no-speech": (*NOT_ACCURACY, "ask_languages"),
    }[mode]
    idle += () if mode in {"accuracy", "no-speech"} else ONLY_ACCURACY
    context = click.get_current_context()
    for name in idle:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = name.removeprefix("num_").removesuffix("_file").replace("_", "-")
            raise cli.WrongUse(f"--{option}: does nothing with --{mode}")


def _plane(given: dict[str, Any]) -> dict[str, Any]:
    from pipeline.benchmark.plane.loads import loads
    from pipeline.benchmark.plane.plane import run_plane

    known = list(loads(given["hours"]))
    wanted = _wanted("--loads", given["loads"], known)
    return run_plane(given["hours"], num_rounds=given["num_rounds"], rtfx=given["device_rtfx"], names=wanted)


def _random_weights(given: dict[str, Any]) -> dict[str, Any]:
    import torch

    from pipeline.benchmark import suites
    from pipeline.benchmark.peers.contenders import versions

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if given["suite"] == "gpu" and device.type != "cuda":
        raise cli.WrongUse("--suite gpu: this machine has no CUDA device")
    path = None if given["json_file"] is None else Path(given["json_file"])
    models = None if given["models"] is None else _wanted("--models", given["models"], list(suites.ABOUT_S))
    if given["suite"] == "gpu":
        found = suites.run_gpu_suite(device, models=models, budget_s=given["budget_s"], path=path)
    else:
        found = suites.run_mlperf(
            device, models=models, batches=_sizes(given["batches"]), budget_s=given["budget_s"], path=path
        )
        _print_beside_published(found)
    return {"suite": given["suite"], "versions": versions(), **found}


def _sizes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(part.isdecimal() and int(part) for part in text.split(",")):
        raise cli.WrongUse(f"--batches: {text} must be numbers from 1 on, with commas between")
    return [int(part) for part in text.split(",")]


def _print_beside_published(found: dict[str, Any]) -> None:
    for row in found["published"]:
        line = f"MLPerf v5.1 Offline, large-v3: {row['windows_per_s']:7.2f} windows/s"
        click.echo(f"{line}  {row['device']}, {row['software']}", err=True)
    for row in found["cases"]:
        rate = f"{row['windows_per_s']:7.2f} windows/s, {row['roofline']:4.0%} of the roofline"
        click.echo(f"here, {row['case']:30} {rate}", err=True)
    click.echo(found["note"], err=True)


def _accuracy(given: dict[str, Any]) -> dict[str, Any]:
    from pipeline.benchmark.accuracy.corpus import read_corpus
    from pipeline.benchmark.accuracy.programs import COMPARED, OURS
    from pipeline.benchmark.accuracy.report import compare, tables
    from pipeline.benchmark.accuracy.runs import Request

    request = Request(
        manifest=given["manifest"],
        recordings=read_corpus(given["manifest"]),
        model=_model("--accuracy", given),
        output=given["output"] or Path("accuracy"),
        asks_language=given["ask_languages"],
    )
    known = list(COMPARED) if given["peers"] else [OURS]
    outcome = compare(request, _wanted("--contenders", given["contenders"], known))
    _print(tables(outcome))
    return outcome


def _no_speech(given: dict[str, Any]) -> dict[str, Any]:
    from pipeline.benchmark.accuracy.programs import COMPARED, OURS
    from pipeline.benchmark.no_speech.report import count_invented, settings, tables

    model = _model("--no-speech", given)
    others = [name for name in COMPARED if name != OURS] if given["peers"] else []
    known = [*settings(model), *others]
    wanted = _wanted("--contenders", given["contenders"], known)
    outcome = count_invented(given["noises"], model, given["output"] or Path("no-speech"), wanted)
    _print(tables(outcome))
    return outcome


def _model(mode: str, given: dict[str, Any]) -> Path:
    if given["model"] is None:
        raise cli.WrongUse(f"{mode}: needs --model and a folder")
    folder: Path = given["model"]
    return folder


def _print(tables: Iterable[Table]) -> None:
    from rich import table

    for one in tables:
        shown = table.Table(*one.header, title=one.title)
        for row in one.rows:
            shown.add_row(*row)
        cli.console(160).print(shown)


def _check(given: dict[str, Any]) -> dict[str, Any]:
    from pipeline.benchmark.check import check_texts

    return {"suite": "check", **check_texts(_contenders(given), threads=given["threads"])}


def _cpu(given: dict[str, Any]) -> dict[str, Any]:
    from pipeline.benchmark.cpu import CpuSuite, run_cpu_suite

    plan = CpuSuite(
        cases=_wanted("--cases", given["cases"], list(CASES)),
        contenders=_contenders(given),
        num_rounds=given["num_rounds"],
        num_tokens=given["num_tokens"],
        threads=given["threads"],
        features_inside=given["features"] == "inside",
    )
    return run_cpu_suite(plan)


def _contenders(given: dict[str, Any]) -> list[str]:
    from pipeline.benchmark.peers.contenders import names

    return _wanted("--contenders", given["contenders"], names(peers=given["peers"]))


def _wanted(option: str, text: str | None, known: list[str]) -> list[str]:
    """Those asked for, or all. Raises `WrongUse` for a name that there is none of."""
    wanted = known if text is None else text.split(",")
    for name in wanted:
        if name not in known:
            raise cli.WrongUse(f"{option}: {name} is none of {', '.join(known)}")
    return wanted


if __name__ == "__main__":
    cli.run(benchmark, "earshard benchmark")
