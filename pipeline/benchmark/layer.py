"""The scoring layer beside a dense one: what choosing positions costs, and what it saves at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pipeline.engine.model import int8
from pipeline.engine.model.encoder import Encoder, EncoderLayer
from pipeline.engine.model.snapshot import resolve
from pipeline.engine.model.whisper import load_model
from pipeline.engine.sparsify.level import num_kept
from pipeline.engine.sparsify.scoring_layer import finish_kept
from pipeline.engine.sparsify.selectors import SELECTORS, Evidence

DTYPES = ("float32", "int8") if int8.is_supported() else ("float32",)


def time_layers(folder: Path, *, layer: int, sparsity: float, num_rounds: int) -> list[dict[str, Any]]:
    """CPU seconds of one window in a layer (1-based) that is dense, and in one that scores and drops.

    A row for each dtype. Rounds are interleaved, another one going first in each; `ratio` is the median over
    rounds of the scoring layer's time over the dense one's.
    """
    rows = []
    for dtype in DTYPES:
        model = load_model(resolve(folder), device=torch.device("cpu"), dtype=dtype)
        runs = _runs(model.encoder, model.shape.num_mels, model.shape.num_frames, layer, sparsity)
        times = _interleaved(runs, num_rounds)
        rows.append(
            {
                "model": folder.name,
                "dtype": dtype,
                "dense_s": median(dense for dense, _ in times),
                "eas_s": median(eas for _, eas in times),
                "ratio": median(eas / dense for dense, eas in times),
            }
        )
    return rows


@torch.inference_mode()
def _runs(
    encoder: Encoder, num_mels: int, num_frames: int, layer: int, sparsity: float
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """The layer dense, and as the scoring one, on one window of noise."""
    mel = torch.randn(1, num_mels, num_frames, generator=torch.Generator().manual_seed(0))
    x = encoder.run(encoder.stem(mel), 0, layer - 1)
    scoring = encoder.layers[layer - 1]
    assert isinstance(scoring, EncoderLayer)
    positions = torch.arange(x.shape[1])[None]
    selector, k = SELECTORS["attention"], num_kept(sparsity, x.shape[1])

    def eas() -> Tensor:
        qkv = scoring.project(x)
        kept = selector(Evidence(q=qkv[0], k=qkv[1], mel=mel, seeds=[0], positions=positions), k)
        return finish_kept(scoring, x, qkv, kept)

    return lambda: scoring(x), eas


@torch.inference_mode()
def _interleaved(
    runs: tuple[Callable[[], Tensor], Callable[[], Tensor]], num_rounds: int
) -> list[tuple[float, float]]:
    """CPU seconds of both in each round, after one that does not count."""
    found = []
    for turn in range(num_rounds + 1):
        spent = [0.0, 0.0]
        for which in (0, 1) if turn % 2 else (1, 0):
            started = time.process_time()
            runs[which]()
            spent[which] = time.process_time() - started
        found.append((spent[0], spent[1]))
    return found[1:]
