"""One random model on one device at a time, and what is measured of it.

Weights are made on the device, so that nothing of a large model is written to disk or downloaded.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.benchmark.kernels import count_launches, profile_kernels
from pipeline.benchmark.machine import Peaks, peak_copy, peak_flops, peak_int8
from pipeline.benchmark.random_model import KINDS, Kind, random_model, random_transformers_model
from pipeline.benchmark.roofline import LaunchCounts
from pipeline.benchmark.throughput import NUM_TOKENS, measure_throughput
from pipeline.engine.audio import NUM_FRAMES, WINDOW_S
from pipeline.engine.model.whisper import Model

PEAK_SIZE = 8192


@dataclass(kw_only=True)
class Bench:
    """One model on one device at a time, with what the device does at best."""

    device: torch.device
    dtype: str
    num_tokens: int = NUM_TOKENS
    _name: str = ""
    _model: Model | None = None
    _launches: dict[int, LaunchCounts] = field(default_factory=dict)

    @cached_property
    def peaks(self) -> Peaks:
        """Measured once."""
        if self.device.type == "cuda":
            flops = peak_flops(self.device, torch.bfloat16, PEAK_SIZE)
            return Peaks(flops=flops, copied=peak_copy(self.device))
        flops = peak_flops(self.device, torch.float32)
        linear = peak_int8() if self.dtype == "int8" else None
        return Peaks(flops=flops, copied=peak_copy(self.device), linear_flops=linear)

    def model(self, name: str) -> Model:
        """The random model of a kind; the one before it is let go."""
        if name != self._name:
            self._model = None
            self._launches.clear()
            with tempfile.TemporaryDirectory() as folder:
                self._model = random_model(Path(folder), KINDS[name], device=self.device, dtype=self.dtype)
            self._name = name
        assert self._model is not None
        return self._model

    def launches(self, name: str, batch_size: int) -> LaunchCounts:
        """The kernels of a model at a batch size, counted once."""
        model = self.model(name)
        if batch_size not in self._launches:
            self._launches[batch_size] = count_launches(model, batch_size)
        return self._launches[batch_size]

    def throughput(self, name: str, batch_size: int, variant: str) -> dict[str, Any]:
        """One row of the table beside MLPerf's."""
        model, launches = self.model(name), self.launches(name, batch_size)
        self._clear()
        return measure_throughput(
            model, name, batch_size, variant, self.peaks, launches, num_tokens=self.num_tokens
        ).as_dict()

    def profile(self, name: str, batch_size: int) -> dict[str, Any]:
        """Where the time of a model at a batch size goes."""
        self._clear()
        return profile_kernels(self.model(name), batch_size)

    def generate(self, name: str, batch_size: int) -> dict[str, Any]:
        """transformers' generate on the same shapes."""
        self._name, self._model = "", None
        self._clear()
        rtfx = generate_rtfx(KINDS[name], batch_size, self.num_tokens, self.device)
        return {"model": name, "batch_size": batch_size, "rtfx": rtfx, "windows_per_s": rtfx / WINDOW_S}

    def _clear(self) -> None:
        """Gives back what the case before left: its caches can be half of the device's memory."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


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


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - started
