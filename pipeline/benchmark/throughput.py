"""Windows a second, from samples in memory to tokens, in the shape of MLPerf Inference's whisper benchmark.

That benchmark (Offline, round v5.1) transcribes 1,633 windows packed with speech: 24.5 s of sound in 30 s,
63.5 tokens each, greedy. Here the weights are random, so the work is the same and the text is noise: nothing
is said about accuracy, about windows that fail a quality gate, or about windows whose texts differ in length.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from pipeline.benchmark.machine import Peaks
from pipeline.benchmark.roofline import BatchWork, LaunchCounts, predicted_s
from pipeline.engine.audio import SAMPLE_RATE, WINDOW_S
from pipeline.engine.decoding.memory import bytes_of_number
from pipeline.engine.model.whisper import Model
from pipeline.engine.options import DEFAULT_LAYER, EngineOptions, MemoryDtype
from pipeline.engine.scheduling.passes import Pass, Passes, Work
from pipeline.engine.sparsify.level import Level

SOUND_S = 24.5
NUM_TOKENS = 64
SPARSITY = 0.5
BATCHES = 3

# (device, software, windows a second): the audited results of round v5.1, Offline, large-v3.
PUBLISHED = (
    ("NVIDIA H200", "TensorRT-LLM, fp16, batch 256", 67.9),
    ("NVIDIA H100 NVL", "fp16", 43.6),
    ("NVIDIA L40S", "fp16", 18.3),
    ("NVIDIA L4", "fp16", 5.50),
    ("2 x Intel Xeon 6980P", "int8, 256 cores", 28.9),
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a batch is made cheaper. selector: of half of the positions, None for all of them."""

    selector: str | None = None
    memory_dtype: MemoryDtype = "same"

    @property
    def level(self) -> Level | None:
        """None for dense."""
        if self.selector is None:
            return None
        return Level(layer=DEFAULT_LAYER, selector=self.selector, sparsity=SPARSITY)


VARIANTS = {
    "dense": Variant(),
    "stride": Variant(selector="stride"),
    "attention": Variant(selector="attention"),
    "dense, int8 memory": Variant(memory_dtype="int8"),
    "stride, int8 memory": Variant(selector="stride", memory_dtype="int8"),
}


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """One model at one batch size, dense or sparse.

    windows_per_s: of wall time on a GPU, of CPU time on a CPU (so of one core). rtfx: of windows of 30 s.
    predicted_windows_per_s: from the roofline and the launches. roofline: ideal over measured time.
    """

    model: str
    dtype: str
    batch_size: int
    variant: str
    num_windows: int
    windows_per_s: float
    tokens_per_s: float
    rtfx: float
    predicted_windows_per_s: float
    roofline: float
    peak_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return asdict(self)


def packed_windows(number: int, seed: int = 0) -> list[np.ndarray]:
    """Windows of 24.5 s of noise, float32 at 16 kHz: what they say does not matter to random weights."""
    generator = np.random.default_rng(seed)
    one = generator.normal(0, 0.1, round(SOUND_S * SAMPLE_RATE)).astype(np.float32)
    return [np.roll(one, 997 * shift) for shift in range(number)]


@torch.inference_mode()
def measure_throughput(
    model: Model,
    name: str,
    batch_size: int,
    variant: str,
    peaks: Peaks,
    launches: LaunchCounts,
    *,
    num_tokens: int = NUM_TOKENS,
    batches: int = BATCHES,
) -> Throughput:
    """Times `batches` batches after one that warms up; the model must be one that never ends.

    Features are made, and windows are encoded and decoded, by the engine's own scheduler.
    """
    is_cuda = model.device.type == "cuda"
    way = VARIANTS[variant]
    options = EngineOptions(
        timestamps="none", max_new_tokens=num_tokens, batch_size=batch_size, memory_dtype=way.memory_dtype
    )
    passes = Passes(model, options, batch_size=batch_size)
    settings = Pass(level=way.level)

    number = batches * batch_size
    windows = packed_windows(number)

    def run(number: int) -> None:
        works = [Work(samples=one, seed=0, language="en") for one in windows[:number]]
        for decoding in passes.run(works, settings):
            assert len(decoding.tokens) == num_tokens

    run(batch_size)
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
    seconds = _seconds(lambda: run(number), is_cuda)
    work = _work(model, batch_size, way, num_tokens)
    return Throughput(
        model=name,
        dtype=model.dtype,
        batch_size=batch_size,
        variant=variant,
        num_windows=number,
        windows_per_s=number / seconds,
        tokens_per_s=number * num_tokens / seconds,
        rtfx=WINDOW_S * number / seconds,
        predicted_windows_per_s=batch_size / predicted_s(work, peaks, launches, num_tokens),
        roofline=batches * work.ideal_s(peaks.flops, peaks.copied, peaks.linear_flops) / seconds,
        peak_bytes=torch.cuda.max_memory_allocated(model.device) if is_cuda else 0,
    )


def _seconds(run: Any, is_cuda: bool) -> float:
    """Wall time on a GPU, whose results are on the host when it returns; CPU time elsewhere."""
    clock = time.perf_counter if is_cuda else time.process_time
    started = clock()
    run()
    return clock() - started


def _work(model: Model, batch_size: int, way: Variant, num_tokens: int) -> BatchWork:
    itemsize = model.torch_dtype.itemsize
    return BatchWork.of(
        model.shape,
        batch_size,
        0.0 if way.selector is None else SPARSITY,
        DEFAULT_LAYER,
        num_tokens,
        bytes_of_number(way.memory_dtype, itemsize, model.shape.decoder_head_dim),
        weight_itemsize=1 if model.dtype == "int8" else itemsize,
        scores=way.selector == "attention",
    )
