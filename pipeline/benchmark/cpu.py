"""The CPU suite: ours beside the peers, case by case, each in a process of its own."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.benchmark.layer import time_layers
from pipeline.benchmark.machine import describe_machine
from pipeline.benchmark.peers import contenders
from pipeline.benchmark.peers.contender import CaseSetup
from pipeline.benchmark.peers.interleaved import Measurement, medians, ratios, run_rounds
from pipeline.benchmark.peers.seat import Seat, SeatError, seats
from pipeline.benchmark.random_model import KINDS, write_random_model
from pipeline.benchmark.roofline import BatchWork
from pipeline.engine.audio import NUM_FRAMES, WINDOW_SAMPLES
from pipeline.engine.model.log_mel import LogMel
from pipeline.engine.model.shape import Shape
from pipeline.engine.model.snapshot import resolve

CASES = {"tiny-b4": ("tiny", 4), "tiny-b8": ("tiny", 8), "small-b1": ("small", 1)}
LAYER_ROUNDS = 5  # of the layers for each round of the whole: they take milliseconds


@dataclass(frozen=True, kw_only=True)
class CpuSuite:
    """What to run. features_inside: everyone makes its own, and the time counts."""

    cases: Sequence[str]
    contenders: Sequence[str]
    num_rounds: int
    num_tokens: int
    threads: int
    features_inside: bool


def run_cpu_suite(plan: CpuSuite) -> dict[str, Any]:
    """Runs the cases of a plan; a table goes to stderr. Raises `SeatError` where one of ours fails."""
    machine = describe_machine()
    rounds: list[Measurement] = []
    rows: list[dict[str, Any]] = []
    layers: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        found = seats(plan.contenders, threads=plan.threads)
        for seat in found.values():
            stack.enter_context(seat)
        for case in plan.cases:
            done, table = _run_case(case, Path(folder), plan, found, machine, failed)
            rounds += done
            rows += table
        for name in sorted({CASES[case][0] for case in plan.cases}):
            layers += _time_layers(Path(folder) / name, plan.num_rounds)
    return {
        "suite": "cpu",
        "machine": machine,
        "versions": contenders.versions(),
        "num_tokens": plan.num_tokens,
        "threads": plan.threads,
        "features": "inside" if plan.features_inside else "outside",
        "absent": contenders.absent(),
        "failed": failed,
        "medians": rows,
        "layers": layers,
        "ratios": ratios(rounds),
        "rounds": [one.as_dict() for one in rounds],
    }


def _run_case(
    case: str,
    root: Path,
    plan: CpuSuite,
    found: Mapping[str, Seat],
    machine: dict[str, Any],
    failed: dict[str, str],
) -> tuple[list[Measurement], list[dict[str, Any]]]:
    name, batch_size = CASES[case]
    folder = root / name
    if not folder.is_dir():
        write_random_model(folder, KINDS[name], never_ends=True)
    setting = CaseSetup(folder, plan.num_tokens, batch_size, plan.threads)
    ready = _loaded(found, setting, failed)
    print(f"{case}: {', '.join(ready)}", file=sys.stderr, flush=True)
    inputs = _inputs(batch_size, KINDS[name].num_mels, plan.features_inside)
    runs = {
        one: partial(seat.run, inputs, features_inside=plan.features_inside) for one, seat in ready.items()
    }
    rounds = run_rounds(case, runs, plan.num_rounds)
    shape = Shape.from_config(resolve(folder).config)
    table = [
        {
            **row,
            "roofline": _roofline(row, shape, setting, machine),
            "peak_bytes": ready[row["contender"]].peak_bytes(),
        }
        for row in medians(rounds)
    ]
    for row in table:
        _print(row)
    return rounds, table


def _time_layers(folder: Path, num_rounds: int) -> list[dict[str, Any]]:
    rows = time_layers(
        folder, layer=contenders.LAYER, sparsity=contenders.SPARSITY, num_rounds=LAYER_ROUNDS * num_rounds
    )
    for row in rows:
        times = f"a dense layer {1000 * row['dense_s']:.1f} ms, the scoring one {1000 * row['eas_s']:.1f} ms"
        print(f"{row['model']:10} {row['dtype']:12} {times}: {row['ratio']:.2f}", file=sys.stderr, flush=True)
    return rows


def _loaded(found: Mapping[str, Seat], setting: CaseSetup, failed: dict[str, str]) -> dict[str, Seat]:
    """Those that can load the model; a peer that cannot is left out, and it is said why."""
    ready = {}
    for name, seat in found.items():
        try:
            seat.load(setting)
        except SeatError as error:
            if name in contenders.OURS:
                raise
            failed[f"{name} {setting.folder.name}"] = str(error)
            continue
        ready[name] = seat
    return ready


def _inputs(batch_size: int, num_mels: int, features_inside: bool) -> np.ndarray:
    """Noise: samples [batch, 480000], or their log-mel features [batch, num_mels, 3000]; float32."""
    noise = np.random.default_rng(0).normal(0, 0.1, (batch_size, WINDOW_SAMPLES)).astype(np.float32)
    if features_inside:
        return noise
    return LogMel(num_mels, NUM_FRAMES, torch.device("cpu"))(list(noise)).numpy()


def _roofline(row: dict[str, Any], shape: Shape, setting: CaseSetup, machine: dict[str, Any]) -> float:
    """Ideal over measured CPU time, at the peaks of one thread; of a peer's arithmetic as of ours."""
    is_int8 = "int8" in row["contender"]
    sparsity = contenders.SPARSITY if row["contender"].endswith("_eas") else 0.0
    size = setting.batch_size
    work = BatchWork.of(shape, size, sparsity, contenders.LAYER, setting.num_tokens, 4, 1 if is_int8 else 4)
    ideal_s = work.ideal_s(
        machine["peak_gflops"] * 1e9,
        machine["peak_copy_gb_per_s"] * 1e9,
        machine["peak_int8_gops"] * 1e9 if is_int8 else None,
    )
    return round(ideal_s / (row["cpu_s_per_window"] * size), 3)


def _print(row: dict[str, Any]) -> None:
    times = f"{row['cpu_s_per_window']:8.3f} CPU-s a window {row['wall_s_per_window']:8.3f} wall"
    rest = f"{row['roofline']:5.0%} of the roofline {row['peak_bytes'] / 1e6:6.0f} MB"
    print(f"{row['case']:10} {row['contender']:12} {times} {rest}", file=sys.stderr, flush=True)
