"""Measure the engine's speed, beside its peers if asked, on random weights of the true Whisper shapes."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs import cli

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.benchmark.rounds import Round

CASES = {"tiny-b4": ("tiny", 4), "tiny-b8": ("tiny", 8), "small-b1": ("small", 1)}


@click.command("benchmark", context_settings=cli.SETTINGS, help=__doc__)
@click.option("--suite", default="cpu", type=click.Choice(["cpu", "gpu"]), show_default=True,
              help="gpu: tiny to large-v3, batches 16 to 256, dense and sparse, stages.")  # fmt: skip
@click.option("--peers", is_flag=True, help="Also time the other engines that are installed.")
@click.option("--cases", default=",".join(CASES), show_default=True, help="Which of the CPU suite.")
@click.option("--contenders", help="Only these, by name, with commas between.  [default: all]")
@click.option("--rounds", "num_rounds", default=5, type=click.IntRange(min=1), show_default=True)
@click.option("--tokens", "num_tokens", default=60, type=click.IntRange(1, 440), show_default=True,
              help="Tokens per window; the end token is suppressed.")  # fmt: skip
@click.option("--threads", default=1, type=click.IntRange(min=1), show_default=True)
def benchmark(suite: str, peers: bool, cases: str, contenders: str | None, num_rounds: int, num_tokens: int,
              threads: int) -> tuple[dict[str, Any], int]:  # fmt: skip
    """Print a table on stderr, and every raw round as one JSON line."""
    import torch

    from pipeline.benchmark.contenders import versions

    torch.set_num_threads(threads)
    if suite == "gpu":
        from pipeline.benchmark.gpu import run_gpu_suite

        if not torch.cuda.is_available():
            raise cli.WrongUse("--suite gpu: this machine has no CUDA device")
        return {"suite": suite, "versions": versions(), **run_gpu_suite(num_tokens)}, cli.OK
    unknown = [case for case in cases.split(",") if case not in CASES]
    if unknown:
        raise cli.WrongUse(f"--cases: {unknown[0]} is none of {', '.join(CASES)}")
    wanted = contenders.split(",") if contenders else None
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases.split(","):
            rounds += _run_case(case, Path(folder), num_rounds, num_tokens, threads, peers, wanted)
    return _totals(rounds, num_tokens, threads), cli.OK


def _run_case(case: str, root: Path, num_rounds: int, num_tokens: int, threads: int, peers: bool,
              wanted: list[str] | None) -> list[Round]:  # fmt: skip
    from pipeline.benchmark.contenders import Setting, contenders
    from pipeline.benchmark.random_model import KINDS, write_random_model
    from pipeline.benchmark.rounds import run_rounds

    name, batch_size = CASES[case]
    builds = contenders(peers=peers)
    unknown = [one for one in wanted or [] if one not in builds]
    if unknown:
        raise cli.WrongUse(f"--contenders: {unknown[0]} is none of {', '.join(builds)}")
    folder = root / name
    if not folder.is_dir():
        write_random_model(folder, KINDS[name], never_ends=True)
    setting = Setting(folder=folder, num_tokens=num_tokens, batch_size=batch_size, threads=threads)
    chosen = {one: build(setting) for one, build in builds.items() if wanted is None or one in wanted}
    print(f"{case}: {', '.join(chosen)}", file=sys.stderr, flush=True)
    return run_rounds(case, chosen, _random_features(batch_size, KINDS[name].num_mels), num_rounds)


def _random_features(batch_size: int, num_mels: int) -> Tensor:
    """Log-mel features of noise: [batch, num_mels, 3000]."""
    import numpy as np
    import torch

    from pipeline.engine.features import LogMel

    noise = np.random.default_rng(0).normal(0, 0.1, (batch_size, 480_000)).astype(np.float32)
    return LogMel(num_mels, 3000, torch.device("cpu"))(list(noise))


def _totals(rounds: list[Round], num_tokens: int, threads: int) -> dict[str, Any]:
    from pipeline.benchmark.contenders import versions
    from pipeline.benchmark.machine import describe_machine
    from pipeline.benchmark.rounds import medians, ratios

    table = medians(rounds)
    for row in table:
        line = f"{row['case']:10} {row['contender']:10} {row['cpu_s_per_window']:8.3f} CPU-s a window"
        print(f"{line} {row['wall_s_per_window']:8.3f} wall", file=sys.stderr, flush=True)
    return {
        "suite": "cpu",
        "machine": describe_machine(),
        "versions": versions(),
        "num_tokens": num_tokens,
        "threads": threads,
        "medians": table,
        "ratios": ratios(rounds),
        "rounds": [one.as_dict() for one in rounds],
    }


if __name__ == "__main__":
    cli.run(benchmark, "earshard benchmark")
