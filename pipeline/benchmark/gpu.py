"""The GPU suite: models, batches and sparsities in one command, with the time of each stage.

Random weights are made on the device, so that nothing of a large model is written to disk or downloaded.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.benchmark.machine import peak_copy, peak_flops
from pipeline.benchmark.random_model import KINDS, Kind, random_model, random_transformers_model
from pipeline.benchmark.roofline import BatchWork
from pipeline.engine.audio import NUM_FRAMES, WINDOW_S, WINDOW_SAMPLES
from pipeline.engine.decoding.rules import Rules
from pipeline.engine.decoding.slots import Slots, Task
from pipeline.engine.model.whisper import Model
from pipeline.engine.options import DEFAULT_LAYER
from pipeline.engine.sparsify.level import Level
from pipeline.engine.sparsify.phases import encode_early
from pipeline.engine.sparsify.scoring_layer import encode_late
from pipeline.engine.sparsify.selectors import num_kept

MODELS = ("large-v3-turbo", "tiny", "small", "large-v3")
BATCHES = (16, 64, 256)
GENERATE_BATCHES = (16, 64)
SPARSITIES = (0.0, 0.4, 0.5, 0.6)
BUDGET_S = 420.0  # of the eight minutes that one command may take
REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What the device does at best: operations and bytes a second, measured in this run."""

    flops: float
    copied: float


@dataclass(frozen=True, kw_only=True)
class BatchTimes:
    """Seconds of one batch, stage by stage, and what they come to.

    roofline: ideal over measured time of the last three stages. rtfx: with all four.
    """

    model: str
    batch_size: int
    sparsity: float
    features_s: float
    encode_s: float
    memory_s: float
    decode_s: float
    rtfx: float
    roofline: float
    peak_bytes: int


def run_gpu_suite(num_tokens: int, device: str = "cuda", dtype: str = "bfloat16") -> dict[str, Any]:
    """Runs as much of the suite as fits into the time; what was left out is named."""
    place, deadline = torch.device(device), time.perf_counter() + BUDGET_S
    peaks = Peaks(flops=peak_flops(place, torch.bfloat16, 8192), copied=peak_copy(place))
    stages: list[BatchTimes] = []
    theirs: list[dict[str, Any]] = []
    left_out: list[str] = []

    def attempt(case: str, measure: Callable[[], None]) -> None:
        print(case, file=sys.stderr, flush=True)
        if time.perf_counter() > deadline:
            left_out.append(case)
            return
        try:
            measure()
        except torch.cuda.OutOfMemoryError:
            left_out.append(f"{case} (memory)")

    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            model = random_model(Path(folder), KINDS[name], device=place, dtype=dtype)
        for batch_size, sparsity in product(BATCHES, SPARSITIES):
            attempt(
                f"{name} b{batch_size} s{sparsity:g}",
                lambda m=model, n=name, b=batch_size, s=sparsity: stages.append(  # type: ignore[misc]
                    measure_stages(m, n, b, s, num_tokens, peaks)
                ),
            )
        del model
        for batch_size in GENERATE_BATCHES:
            attempt(
                f"{name} b{batch_size} generate",
                lambda n=name, b=batch_size: theirs.append(  # type: ignore[misc]
                    {"model": n, "batch_size": b, "rtfx": generate_rtfx(KINDS[n], b, num_tokens, place)}
                ),
            )
    return {
        "device": torch.cuda.get_device_name(place),
        "peak_tflops": peaks.flops / 1e12,
        "peak_copy_gb_per_s": peaks.copied / 1e9,
        "stages": [asdict(one) for one in stages],
        "generate": theirs,
        "left_out": left_out,
    }


@torch.inference_mode()
def measure_stages(
    model: Model, name: str, batch_size: int, sparsity: float, num_tokens: int, peaks: Peaks
) -> BatchTimes:
    """Medians of a few batches, after one that compiles and captures."""
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    positions = num_kept(sparsity, model.shape.source_positions)
    rules = Rules(model.vocabulary, model.device, timestamps=True)
    slots = Slots(model, rules, size=batch_size, num_positions=positions)
    windows = [np.zeros(WINDOW_SAMPLES, np.int16)] * batch_size
    times = [_run_once(model, slots, windows, sparsity, num_tokens) for _ in range(REPEATS + 1)][1:]
    features_s, encode_s, memory_s, decode_s = (median(run[stage] for run in times) for stage in range(4))
    model_s = encode_s + memory_s + decode_s
    work = BatchWork.of(
        model.shape, batch_size, sparsity, DEFAULT_LAYER, num_tokens, model.torch_dtype.itemsize
    )
    return BatchTimes(
        model=name,
        batch_size=batch_size,
        sparsity=sparsity,
        features_s=features_s,
        encode_s=encode_s,
        memory_s=memory_s,
        decode_s=decode_s,
        rtfx=WINDOW_S * batch_size / (features_s + model_s),
        roofline=work.ideal_s(peaks.flops, peaks.copied) / model_s,
        peak_bytes=torch.cuda.max_memory_allocated(model.device) if model.device.type == "cuda" else 0,
    )


def _run_once(
    model: Model, slots: Slots, windows: Sequence[np.ndarray], sparsity: float, num_tokens: int
) -> tuple[float, float, float, float]:
    """Seconds to make features, to encode, to project the memory, and to decode."""
    _, features_s = _timed(lambda: model.features(windows))
    # Noise: silence would let every position weigh the same.
    mel = torch.randn(len(windows), model.shape.num_mels, model.shape.num_frames, device=model.device)
    hidden, encode_s = _timed(lambda: _encode(model, mel, sparsity))
    rows, memory_s = _timed(lambda: slots.load(hidden))
    prompt = tuple(model.vocabulary.start_sequence("en", "transcribe", timestamps=True))
    tasks = [
        Task(index=index, prompt=prompt, start=0, max_new_tokens=num_tokens) for index in range(len(windows))
    ]

    def decode() -> None:
        slots.start(rows, tasks)
        while slots.live:
            slots.step()

    return features_s, encode_s, memory_s, _timed(decode)[1]


@torch.inference_mode()
def generate_rtfx(kind: Kind, batch_size: int, num_tokens: int, device: torch.device) -> float:
    """RTFx of transformers' generate on random weights of the same shapes, features made beforehand."""
    theirs = random_transformers_model(kind, device=device)
    mel = torch.randn(batch_size, kind.num_mels, NUM_FRAMES, device=device, dtype=theirs.dtype)

    def generate() -> Tensor:
        return theirs.generate(
            mel,
            language="en",
            task="transcribe",
            return_timestamps=False,
            max_new_tokens=num_tokens,
            num_beams=1,
            do_sample=False,
            force_unique_generate_call=True,
        )

    generate()
    return WINDOW_S * batch_size / min(_timed(generate)[1] for _ in range(2))


def _encode(model: Model, mel: Tensor, sparsity: float) -> Tensor:
    if sparsity == 0.0:
        return model.encoder(mel)
    level = Level(layer=DEFAULT_LAYER, sparsity=sparsity)
    num = len(mel)
    early = encode_early(model.encoder, mel, level=level, num_samples=[WINDOW_SAMPLES] * num, seeds=[0] * num)
    return encode_late(model.encoder, torch.stack([one.hidden for one in early]), DEFAULT_LAYER)


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - started
