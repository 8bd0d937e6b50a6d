"""What the machine is and how fast it can be: the measured peaks that a roofline needs."""

from __future__ import annotations

import platform
import resource
import time
from pathlib import Path
from typing import Any

import torch

PEAK_SIZE = 1536  # a square product of this size fits the caches of any server core
COPY_BYTES = 256 << 20


def describe_machine() -> dict[str, Any]:
    """Processor, measured peaks of one torch thread pool, and the largest memory that this process held."""
    return {
        "cpu": _cpu_name(),
        "peak_gflops": round(peak_flops(torch.device("cpu"), torch.float32) / 1e9, 1),
        "peak_copy_gb_per_s": round(peak_copy(torch.device("cpu")) / 1e9, 1),
        "max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def peak_flops(device: torch.device, dtype: torch.dtype, size: int = PEAK_SIZE) -> float:
    """Best floating-point operations a second of a square matrix product."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2.0 * size**3 / _best_s(lambda: a @ a, device)


def peak_copy(device: torch.device) -> float:
    """Best bytes a second read and written by a copy."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * COPY_BYTES / _best_s(lambda: target.copy_(source), device)


def _best_s(run: Any, device: torch.device, repeats: int = 8) -> float:
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
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
