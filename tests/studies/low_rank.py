"""What low-rank maps in the encoder cost in words and save in time (LiteASR, arXiv 2502.20583).

The outputs of a linear map on a little speech are described by k principal components V: W x + b becomes
V (V^T W) x + c, k the least that keeps a share of their energy, where that is less work. The attention itself
stays as it is.

Run as `python -m tests.studies.low_rank MANIFEST ... --model FOLDER --output FILE.jsonl`; a line per window
and variant is added to the file, and lines that are there already are not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.engine import Engine, EngineOptions
from pipeline.engine.model import packed
from pipeline.engine.model.encoder import Encoder
from pipeline.engine.model.layers import Linear
from pipeline.engine.model.snapshot import resolve
from pipeline.engine.model.weights import read_weights
from pipeline.engine.model.whisper import Model, load_model
from pipeline.engine.sparsify.level import Level
from pipeline.metrics.wer import count_errors
from tests.studies.speech_windows import SpeechWindow, speech_windows

NUM_CALIBRATION = 8
GROUP = 8
THRESHOLDS = (0.95, 0.99, 0.999)


@dataclass
class Moments:
    """Of the outputs of one map: how many, their sum and the sum of their outer products."""

    number: int = 0
    total: Tensor | float = 0.0
    products: Tensor | float = 0.0

    def add(self, outputs: Tensor) -> None:
        rows = outputs.flatten(0, -2)
        self.number += len(rows)
        self.total = self.total + rows.sum(0).double()
        self.products = self.products + (rows.T @ rows).double()

    def spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [out], energies descending [out], and components [out, out] by column."""
        mean = self.total / self.number
        energies, components = torch.linalg.eigh(self.products / self.number - torch.outer(mean, mean))
        return mean, energies.flip(0).clamp(min=0), components.flip(1)


class LowRank(nn.Module):
    """Two maps in the place of one."""

    def __init__(self, down: Tensor, up: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.down, self.up = Linear(down), Linear(up, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


class SideBySide(nn.Module):
    """The outputs of several maps of one input, side by side."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], -1)


def maps_of(encoder: Encoder) -> dict[str, Linear]:
    """Every linear map of the encoder's layers by its name."""
    return {name: module for name, module in encoder.named_modules() if isinstance(module, Linear)}


def parts_of(name: str, num_outputs: int) -> list[slice]:
    """The rows of a map that are one map of Whisper's: queries, keys and values are three."""
    number = 3 if name.endswith("qkv") else 1
    size = num_outputs // number
    return [slice(size * part, size * (part + 1)) for part in range(number)]


@torch.inference_mode()
def measured_moments(encoder: Encoder, mels: Sequence[Tensor]) -> dict[tuple[str, int], Moments]:
    """Of every map and each of its parts, over all positions of some windows."""
    found: dict[tuple[str, int], Moments] = {}
    hooks = []
    for name, module in maps_of(encoder).items():
        parts = parts_of(name, len(module.weight))
        for part in range(len(parts)):
            found[name, part] = Moments()

        def note(_module: Any, _inputs: Any, outputs: Tensor, name: str, parts: list[slice]) -> None:
            for part, rows in enumerate(parts):
                found[name, part].add(outputs[..., rows])

        hooks.append(module.register_forward_hook(partial(note, name=name, parts=parts)))
    for mel in mels:
        encoder(mel)
    for hook in hooks:
        hook.remove()
    return found


def rank_for(energies: Tensor, threshold: float) -> int:
    """The fewest components that keep a share of the energy."""
    kept = energies.cumsum(0) / energies.sum()
    return min(len(energies), int((kept < threshold).sum()) + 1)


def compressed(linear: Linear, rows: slice, spectrum: tuple[Tensor, ...], threshold: float) -> nn.Module:
    """One part of a map, in two where that multiplies less."""
    weight = linear.weight[rows]
    bias = torch.zeros(len(weight)) if linear.bias is None else linear.bias[rows]
    mean, energies, components = spectrum
    rank = rank_for(energies, threshold)
    if rank * sum(weight.shape) >= weight.numel():
        return Linear(weight, bias)
    up = components[:, :rank]
    offset = mean + up @ (up.T @ (bias.double() - mean))
    return LowRank((up.T @ weight.double()).float(), up.float(), offset.float())


def compress(encoder: Encoder, spectra: dict[tuple[str, int], tuple[Tensor, ...]], threshold: float) -> float:
    """Swaps the maps of an encoder; the share of their multiplications that is left."""
    before = after = 0
    for name, module in maps_of(encoder).items():
        parts = [
            compressed(module, rows, spectra[name, part], threshold)
            for part, rows in enumerate(parts_of(name, len(module.weight)))
        ]
        owner, _, attribute = name.rpartition(".")
        setattr(encoder.get_submodule(owner), attribute, parts[0] if len(parts) == 1 else SideBySide(parts))
        before += module.weight.numel()
        after += sum(one.numel() for part in parts for key, one in part.named_buffers() if "weight" in key)
    return after / before


class Compressed:
    """A model and its encoder at every threshold, 1.0 as it is."""

    def __init__(self, folder: Path, calibration: Sequence[SpeechWindow]) -> None:
        snapshot, cpu = resolve(folder), torch.device("cpu")
        model = load_model(snapshot, device=cpu, dtype="float32")
        weights = read_weights(snapshot)
        mels = [model.features([window.samples]) for window in calibration]
        moments = measured_moments(Encoder(weights, model.shape), mels)
        spectra = {key: one.spectrum() for key, one in moments.items()}
        self.left, self.engines = {1.0: 1.0}, {1.0: _engine(model, snapshot)}
        self.mels = mels
        for threshold in THRESHOLDS:
            encoder = Encoder(weights, model.shape)
            self.left[threshold] = compress(encoder, spectra, threshold)
            if packed.is_best_for_many_rows():
                packed.pack_linears(encoder, skip=None)
            self.engines[threshold] = _engine(replace(model, encoder=encoder), snapshot)


def _engine(model: Model, snapshot: Any) -> Engine:
    return Engine(model, snapshot, EngineOptions(timestamps="none", batch_size=GROUP))


@torch.inference_mode()
def encoder_times(found: Compressed, rounds: int = 5) -> dict[float, float]:
    """CPU seconds of a window through the encoder by threshold, rounds interleaved, the median of each."""
    times: dict[float, list[float]] = {threshold: [] for threshold in found.engines}
    for number in range(rounds + 1):
        for threshold, engine in found.engines.items():
            started = time.process_time()
            engine._model.encoder(found.mels[number % len(found.mels)])
            times[threshold].append(time.process_time() - started)
    return {threshold: sorted(each[1:])[rounds // 2] for threshold, each in times.items()}


def measure(windows: Sequence[SpeechWindow], found: Compressed, output: Path) -> None:
    """Adds a line for every window, threshold and sparsity that the file lacks."""
    lines = output.read_text().splitlines() if output.is_file() else []
    done = {(row["window"], row["variant"]) for row in map(json.loads, lines)}
    for first in range(0, len(windows), GROUP):
        group = windows[first : first + GROUP]
        for sparsity in (0.0, 0.5):
            for threshold, engine in found.engines.items():
                variant = f"{'EAS, ' if sparsity else ''}{threshold:g}"
                if all((window.name, variant) in done for window in group):
                    continue
                level = Level(selector="stride", sparsity=sparsity)
                started = time.process_time()
                results = engine.transcribe(
                    [window.samples for window in group],
                    languages=[window.language if engine.is_multilingual else None for window in group],
                    levels=level,
                )
                cpu_s = (time.process_time() - started) / len(group)
                with output.open("a") as file:
                    for window, result in zip(group, results, strict=True):
                        counts = count_errors(window.reference, result.text, window.language)
                        row = {
                            "window": window.name, "is_full": window.is_full, "variant": variant,
                            "text": result.text, "num_errors": counts.num_errors,
                            "num_words": counts.num_reference_words, "fallback": result.fallback,
                            "decode_cpu_s": round(cpu_s, 4),
                        }  # fmt: skip
                        print(json.dumps(row, ensure_ascii=False), file=file)


def main() -> None:
    """Calibrates on the last windows of the sample, and measures on the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(1)
    windows = speech_windows(given.manifests, limit=given.limit + NUM_CALIBRATION)
    found = Compressed(given.model, windows[-NUM_CALIBRATION:])
    left = {f"{threshold:g}": round(share, 3) for threshold, share in found.left.items()}
    times = {f"{threshold:g}": round(each, 4) for threshold, each in encoder_times(found).items()}
    print(json.dumps({"multiplications_left": left, "encoder_cpu_s": times}), flush=True)
    measure(windows[:-NUM_CALIBRATION], found, given.output)


if __name__ == "__main__":
    main()
