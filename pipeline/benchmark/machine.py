"""What the machine is and how fast it can be: the measured peaks that a roofline needs."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PEAK_SIZE = 1536  # a square product of this size fits the caches of any server core
COPY_BYTES = 256 << 20


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
    """Best floating-point operations a second of a square matrix product."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2.0 * size**3 / _best_s(lambda: a @ a, device)


def peak_int8(size: int = PEAK_SIZE) -> float:
    """Best operations a second of a square product of int8 on a CPU, by whichever kernel is faster here."""
    a = torch.randint(-127, 128, (size, size), dtype=torch.int8)
    runs: list[Callable[[], Any]] = [lambda: torch._int_mm(a, a)]
    if "fbgemm" in torch.backends.quantized.supported_engines:
        runs.append(_fbgemm_product(a))
    return 2.0 * size**3 / min(_best_s(run, torch.device("cpu"), repeats=3) for run in runs)


def _fbgemm_product(a: torch.Tensor) -> Callable[[], Any]:
    """A product by FBGEMM of weights that are packed and activations that are quantised already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch announces the end of quantised tensors
        weight = torch.quantize_per_tensor(a.float(), 1.0, 0, torch.qint8)
        rows = torch.quantize_per_tensor(a.float() + 128, 1.0, 128, torch.quint8)
    packed = torch.ops.quantized.linear_prepack(weight, None)
    return lambda: torch.ops.quantized.linear(rows, packed, 1.0, 0)


def peak_copy(device: torch.device) -> float:
    """Best bytes a second read and written by a copy."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * COPY_BYTES / _best_s(lambda: target.copy_(source), device)


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


def _cpu_lines(key: str) -> list[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(key)]


def _cpu_name() -> str:
    return next(iter(_cpu_lines("model name")), platform.processor())


def _instructions() -> list[str]:
    """Of those that matter here, what the processor has."""
    flags = set(next(iter(_cpu_lines("flags")), "").split())
    return [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if name in flags]
