"""The suites of random weights: the work that MLPerf measures, and where a GPU's time goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from pipeline.benchmark.bench import Bench
from pipeline.benchmark.cases import Case, run_cases
from pipeline.benchmark.machine import describe_machine
from pipeline.benchmark.throughput import PUBLISHED, VARIANTS
from pipeline.engine.model import int8

CUDA_MODELS = ("large-v3", "large-v3-turbo", "small", "base", "tiny")
CPU_MODELS = ("tiny", "base", "small")
CUDA_BATCHES = (64, 256, 128, 32, 16)  # the batch of the bars first
CPU_BATCHES = (8,)
GENERATE_BATCHES = (64, 256)
# Seconds that a case may take, model and warm-up included: it is left out where less is left.
ABOUT_S = {"large-v3": 20.0, "large-v3-turbo": 12.0, "small": 8.0, "base": 6.0, "tiny": 6.0}
RANDOM = (
    "the weights are random: nothing is said of accuracy, of windows that are decoded again, or of texts of "
    "unequal length"
)


def run_mlperf(
    device: torch.device,
    *,
    models: Sequence[str] | None = None,
    batches: Sequence[int] | None = None,
    budget_s: float,
    path: Path | None,
) -> dict[str, Any]:
    """Windows a second in the shape of MLPerf's benchmark, beside what was audited there.

    models, batches: None is what suits the device. path: JSON, written after every case.
    """
    is_cuda = device.type == "cuda"
    bench = Bench(device=device, dtype=_dtype(device))
    names = models or (CUDA_MODELS if is_cuda else CPU_MODELS)
    sizes = batches or (CUDA_BATCHES if is_cuda else CPU_BATCHES)
    cases = (case for name in names for case in throughput_cases(bench, name, sizes))
    return run_cases(cases, _header(bench), budget_s=budget_s, path=path)


def run_gpu_suite(
    device: torch.device, *, models: Sequence[str] | None = None, budget_s: float, path: Path | None
) -> dict[str, Any]:
    """The cases that say most first: throughput at batch 64, the profile, `generate`, then other batches."""
    bench = Bench(device=device, dtype=_dtype(device))
    cases = gpu_cases(bench, models or CUDA_MODELS)
    return run_cases(cases, _header(bench), budget_s=budget_s, path=path)


def gpu_cases(bench: Bench, models: Sequence[str]) -> Iterator[Case]:
    """Model by model, since making one takes seconds."""
    first, *others = CUDA_BATCHES
    for name in models:
        yield from throughput_cases(bench, name, [first])
        yield Case(
            name=f"{name} b{first} profile", about_s=ABOUT_S[name], run=partial(bench.profile, name, first)
        )
        for size in GENERATE_BATCHES:
            run = partial(bench.generate, name, size)
            yield Case(name=f"{name} b{size} generate", about_s=ABOUT_S[name], run=run)
    for name in models:
        yield from throughput_cases(bench, name, others)


def throughput_cases(bench: Bench, name: str, sizes: Sequence[int]) -> Iterator[Case]:
    """Dense and sparse at each batch size; memory in 8 bits where there is a kernel for it."""
    is_cuda = bench.device.type == "cuda"
    variants = [name for name, way in VARIANTS.items() if is_cuda or way.memory_dtype == "same"]
    for size, variant in product(sizes, variants):
        run = partial(bench.throughput, name, size, variant)
        yield Case(name=f"{name} b{size} {variant}", about_s=ABOUT_S[name], run=run)


def _dtype(device: torch.device) -> str:
    if device.type == "cuda":
        return "bfloat16"
    return "int8" if int8.is_supported() else "float32"


def _header(bench: Bench) -> dict[str, Any]:
    peaks = bench.peaks
    is_cuda = bench.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(bench.device) if is_cuda else describe_machine(),
        "dtype": bench.dtype,
        "peak_tflops": peaks.flops / 1e12,
        "peak_linear_tops": None if peaks.linear_flops is None else peaks.linear_flops / 1e12,
        "peak_copy_gb_per_s": peaks.copied / 1e9,
        "note": RANDOM,
        "published": [
            {"device": device, "software": software, "windows_per_s": rate}
            for device, software, rate in PUBLISHED
        ],
    }
