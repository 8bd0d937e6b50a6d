"""The GPU suite: models, batches and sparsities in one command, with the time of each stage.

Random weights are made on the device, so that nothing of a large model is written to disk or downloaded.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pipeline.benchmark.machine import peak_copy, peak_flops
from pipeline.benchmark.random_model import KINDS, random_model
from pipeline.benchmark.work import Work
from pipeline.engine.model import Model
from pipeline.engine.options import EngineOptions
from pipeline.engine.rules import Rules
from pipeline.engine.slots import Slots, Task
from pipeline.engine.sparsify import SELECTORS, encode_sparse, num_kept

MODELS = ("tiny", "small", "large-v3-turbo", "large-v3")
BATCHES = (16, 64, 256)
SPARSITIES = (0.0, 0.4, 0.5, 0.6)
SCORING_LAYER = 2
BUDGET_S = 440.0  # of the eight minutes that one command may take
REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Seconds of one batch, stage by stage, and what they come to. roofline: ideal over measured time."""

    model: str
    batch_size: int
    sparsity: float
    encode_s: float
    memory_s: float
    decode_s: float
    rtfx: float
    roofline: float
    peak_bytes: int


def run_gpu_suite(num_tokens: int, device: str = "cuda", dtype: str = "bfloat16") -> dict[str, Any]:
    """Runs as much of the suite as fits into the time; what was left out is named."""
    place = torch.device(device)
    flops, copied = peak_flops(place, torch.bfloat16, 8192), peak_copy(place)
    deadline = time.perf_counter() + BUDGET_S
    found, left_out = [], []
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            model = random_model(Path(folder), KINDS[name], device=place, dtype=dtype)
        for batch_size, sparsity in _grid():
            case = f"{name} b{batch_size} s{sparsity:g}"
            if time.perf_counter() > deadline:
                left_out.append(case)
                continue
            try:
                found.append(_measure(model, name, batch_size, sparsity, num_tokens, flops, copied))
            except torch.cuda.OutOfMemoryError:
                left_out.append(f"{case} (memory)")
            print(case, file=sys.stderr, flush=True)
    return {
        "device": torch.cuda.get_device_name(place),
        "peak_tflops": flops / 1e12,
        "peak_copy_gb_per_s": copied / 1e9,
        "stages": [asdict(one) for one in found],
        "left_out": left_out,
    }


def _grid() -> Iterator[tuple[int, float]]:
    for batch_size in BATCHES:
        for sparsity in SPARSITIES:
            yield batch_size, sparsity


@torch.inference_mode()
def _measure(
    model: Model, name: str, batch_size: int, sparsity: float, num_tokens: int, flops: float, copied: float
) -> Stages:
    torch.cuda.reset_peak_memory_stats(model.device)
    mel = torch.randn(batch_size, model.shape.num_mels, model.shape.num_frames, device=model.device)
    times = [_run_once(model, mel, sparsity, num_tokens) for _ in range(REPEATS + 1)][1:]
    encode_s, memory_s, decode_s = (median(run[stage] for run in times) for stage in range(3))
    total_s = encode_s + memory_s + decode_s
    work = Work.of(model.shape, batch_size, sparsity, SCORING_LAYER, num_tokens, model.torch_dtype.itemsize)
    return Stages(
        model=name,
        batch_size=batch_size,
        sparsity=sparsity,
        encode_s=encode_s,
        memory_s=memory_s,
        decode_s=decode_s,
        rtfx=30.0 * batch_size / total_s,
        roofline=work.ideal_s(flops, copied) / total_s,
        peak_bytes=torch.cuda.max_memory_allocated(model.device),
    )


def _run_once(model: Model, mel: Tensor, sparsity: float, num_tokens: int) -> tuple[float, float, float]:
    """Seconds to encode, to project the memory, and to decode."""
    positions = num_kept(sparsity, model.shape.source_positions)
    rules = Rules(model.vocabulary, model.device, timestamps=EngineOptions().timestamps)
    slots = Slots(model, rules, size=len(mel), num_positions=positions)
    hidden, encode_s = _timed(lambda: _encode(model, mel, sparsity, positions))
    rows, memory_s = _timed(lambda: slots.load(hidden))
    prompt = tuple(model.vocabulary.start_sequence("en", "transcribe", timestamps=True))
    tasks = [
        Task(index=index, prompt=prompt, start=0, max_new_tokens=num_tokens) for index in range(len(mel))
    ]

    def decode() -> None:
        slots.start(rows, tasks)
        while slots.live:
            slots.step()

    return encode_s, memory_s, _timed(decode)[1]


def _encode(model: Model, mel: Tensor, sparsity: float, positions: int) -> Tensor:
    if sparsity == 0.0:
        return model.encoder(mel)
    return encode_sparse(
        model.encoder,
        mel,
        layer=SCORING_LAYER,
        k=positions,
        selector=SELECTORS["attention"],
        seeds=[0] * len(mel),
    )


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - started
