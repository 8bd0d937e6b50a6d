"""What the machine is and how fast it can be: the measured peaks that a roofline needs."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.dataflow.machine import cpu_flags, cpu_lines
from pipeline.engine.model import int8, packed
from pipeline.engine.model.layers import Linear

PEAK_SIZE = 1536  # a square product of this size fits the caches of any server core
COPY_BYTES = 256 << 20
NUM_LAUNCHES = 1000


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What a device does at best, measured in this run.

    flops: floating-point operations a second. copied: bytes a second. linear_flops: operations a second of
    linear maps where these are in int8, None where they are like all others.
    """

    flops: float
    copied: float
    linear_flops: float | None = None


def describe_machine() -> dict[str, Any]:
    """Processor, and the measured peaks of one torch thread pool."""
    device = torch.device("cpu")
    return {
        "cpu": _cpu_name(),
        "instructions": _instructions(),
        "peak_gflops": round(peak_flops(device, torch.float32) / 1e9, 1),
        "peak_bf16_gflops": round(peak_flops(device, torch.bfloat16) / 1e9, 1),
        "peak_int8_gops": round(peak_int8() / 1e9, 1),
        "peak_copy_gb_per_s": round(peak_copy(device) / 1e9, 1),
    }


def peak_flops(device: torch.device, dtype: torch.dtype, size: int = PEAK_SIZE) -> float:
    """Best floating-point operations a second of a square matrix product, by MKL's kernel or oneDNN's."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    runs: list[Callable[[], Any]] = [lambda: a @ a]
    if device.type == "cpu" and dtype == torch.float32 and packed.is_supported():
        linear = packed.PackedLinear(Linear(a))
        runs.append(lambda: linear(a))
    return 2.0 * size**3 / min(_best_s(run, device) for run in runs)


def peak_int8(size: int = PEAK_SIZE) -> float:
    """Best operations a second of a square product of int8 on a CPU, by whichever kernel is faster here."""
    a = torch.randint(-127, 128, (size, size), dtype=torch.int8)
    runs: list[Callable[[], Any]] = [lambda: torch._int_mm(a, a)]
    if int8.is_supported():
        runs.append(_onednn_product(a))
    return 2.0 * size**3 / min(_best_s(run, torch.device("cpu"), repeats=3) for run in runs)


def _onednn_product(a: torch.Tensor) -> Callable[[], Any]:
    """A product by oneDNN of weights that are packed and activations that are quantised already."""
    size = len(a)
    weight = torch.ops.onednn.qlinear_prepack(a, [size, size])
    scales, zeros = torch.ones(size), torch.zeros(size, dtype=torch.long)
    rows = (a.float() + 128).to(torch.uint8)
    settings: tuple[Any, ...] = (1.0, 128, weight, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")
    return lambda: torch.ops.onednn.qlinear_pointwise(rows, *settings)


def peak_copy(device: torch.device) -> float:
    """Best bytes a second read and written by a copy."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * COPY_BYTES / _best_s(lambda: target.copy_(source), device)


def launch_s(device: torch.device) -> float:
    """Seconds to start one small kernel after the other, as the host does it without a graph."""
    numbers = torch.zeros(64, device=device)

    def run() -> None:
        for _ in range(NUM_LAUNCHES):
            numbers.add_(1.0)

    return _best_s(run, device) / NUM_LAUNCHES


def replayed_launch_s(device: torch.device) -> float:
    """Seconds to start one small kernel that a CUDA graph replays; `launch_s` where there are none."""
    if device.type != "cuda":
        return launch_s(device)
    numbers, graph = torch.zeros(64, device=device), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(NUM_LAUNCHES):
            numbers.add_(1.0)
    return _best_s(graph.replay, device) / NUM_LAUNCHES


def _best_s(run: Callable[[], Any], device: torch.device, repeats: int = 8) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter() if device.type == "cuda" else time.process_time()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
        else:
            times.append(time.process_time() - started)
    return min(times[1:])


def _cpu_name() -> str:
    return next(iter(cpu_lines("model name")), platform.processor())


def _instructions() -> list[str]:
    """Of those that matter here, what the processor has."""
    flags = cpu_flags()
    return [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if name in flags]
