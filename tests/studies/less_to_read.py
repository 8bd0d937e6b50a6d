"""What it costs in words to let cross-attention read less: fewer positions, or keys and values in 8 bits.

Run as `python -m tests.studies.less_to_read MANIFEST ... --model FOLDER --output FILE.jsonl`; a line per
window and variant is added to the file, and lines that are there already are not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding.memory import quantise
from pipeline.engine.sparsify.level import Level
from pipeline.metrics.wer import count_errors
from tests.studies.speech_windows import SpeechWindow, speech_windows

GROUP = 8
E4M3_LARGEST = 448.0


def every_second(hidden: Tensor) -> Tensor:
    """[positions, dim] -> every second of them."""
    return hidden[::2]


def pair_means(hidden: Tensor) -> Tensor:
    """[positions, dim] -> the mean of each pair; of an odd number the last one stays as it is."""
    return torch.stack([hidden[::2], torch.cat([hidden[1::2], hidden[-1:]])[: len(hidden[::2])]]).mean(0)


def in_int8(x: Tensor) -> Tensor:
    """Rounded as the engine's int8 memory does it; x: [..., head_dim]."""
    ints, scales = quantise(x)
    return ints.to(x.dtype) * scales[..., None]


def in_fp8(x: Tensor) -> Tensor:
    """Rounded to float8 (e4m3) with a scale per head and position."""
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / E4M3_LARGEST
    return (x / scale).to(torch.float8_e4m3fn).to(x.dtype) * scale


@dataclass(frozen=True, kw_only=True)
class Variant:
    """sparsity: of `stride`. reduce: what is left of the final positions. store: of keys and values."""

    sparsity: float = 0.0
    reduce: Callable[[Tensor], Tensor] | None = None
    store: Callable[[Tensor], Tensor] | None = None


VARIANTS = {
    "dense": Variant(),
    "every second": Variant(reduce=every_second),
    "means of pairs": Variant(reduce=pair_means),
    "int8": Variant(store=in_int8),
    "fp8": Variant(store=in_fp8),
    "EAS": Variant(sparsity=0.5),
    "EAS, every second": Variant(sparsity=0.5, reduce=every_second),
    "EAS, means of pairs": Variant(sparsity=0.5, reduce=pair_means),
    "EAS, int8": Variant(sparsity=0.5, store=in_int8),
    "EAS, fp8": Variant(sparsity=0.5, store=in_fp8),
}


class Patched:
    """An engine whose cross-attention reads what a variant leaves, and whose encoder outputs are kept.

    Windows that the gates send back are decoded again over all positions.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._variant = engine, Variant()
        self._known: dict[Any, tuple[Tensor, Tensor | None]] = {}
        self.encode_s = 0.0
        encoding = engine._passes._encoding
        self._positions_of, self._encode = encoding.positions_of, encoding.encode
        encoding.positions_of, encoding.encode = self._fewer_positions, self._encode_less
        for layer in engine._model.decoder.layers:
            layer.project_memory = self._storing(layer.project_memory)

    def forget(self) -> None:
        """Drops the encoder outputs that are kept."""
        self._known.clear()

    def run(self, windows: Sequence[SpeechWindow], variant: Variant) -> list[Any]:
        """The engine's results of windows under a variant."""
        self._variant = variant
        return self._engine.transcribe(
            [window.samples for window in windows],
            languages=[window.language if self._engine.is_multilingual else None for window in windows],
            levels=Level(selector="stride", sparsity=variant.sparsity),
        )

    def _fewer_positions(self, work: Any, settings: Any) -> tuple[Any, int]:
        left, size = self._positions_of(work, settings)
        return left, -(-size // 2) if self._is_reduced(settings) else size

    def _is_reduced(self, settings: Any) -> bool:
        return self._variant.reduce is not None and settings.level is not None

    def _encode_less(self, items: Sequence[Any]) -> Tensor:
        rows = []
        for item in items:
            row, kept = self._encoded(item)
            if self._is_reduced(item.settings):
                assert self._variant.reduce is not None
                row = self._variant.reduce(row)
                kept = torch.arange(0, 1500, 2) if kept is None else kept[::2]
            item.kept = kept
            rows.append(row)
        return torch.stack(rows)

    def _encoded(self, item: Any) -> tuple[Tensor, Tensor | None]:
        key = id(item.work.samples), None if item.settings.is_dense else item.settings.level
        if key not in self._known:
            started = time.process_time()
            self._known[key] = self._encode([item])[0], item.kept
            self.encode_s += time.process_time() - started
        return self._known[key]

    def _storing(self, project: Callable[[Tensor], tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        def stored(hidden: Tensor) -> tuple[Tensor, ...]:
            store = self._variant.store
            return project(hidden) if store is None else tuple(store(one) for one in project(hidden))

        return stored


def measure(windows: Sequence[SpeechWindow], model: Path, output: Path, names: Sequence[str]) -> None:
    """Adds a line for every window and variant that the file lacks."""
    lines = output.read_text().splitlines() if output.is_file() else []
    done = {(row["window"], row["variant"]) for row in map(json.loads, lines)}
    options = EngineOptions(timestamps="none", batch_size=GROUP)
    patched = Patched(Engine.load(model, device="cpu", dtype="float32", options=options))
    for first in range(0, len(windows), GROUP):
        group = windows[first : first + GROUP]
        patched.forget()
        for name in names:
            if all((window.name, name) in done for window in group):
                continue
            before_s, encoded_s = time.process_time(), patched.encode_s
            results = patched.run(group, VARIANTS[name])
            encode_s = patched.encode_s - encoded_s
            decode_s = time.process_time() - before_s - encode_s
            with output.open("a") as file:
                for window, result in zip(group, results, strict=True):
                    row = _row(window, name, result, decode_s / len(group))
                    print(json.dumps(row, ensure_ascii=False), file=file)


def _row(window: SpeechWindow, variant: str, result: Any, decode_s: float) -> dict[str, Any]:
    counts = count_errors(window.reference, result.text, window.language)
    return {
        "window": window.name, "is_full": window.is_full, "language": window.language, "variant": variant,
        "text": result.text, "num_errors": counts.num_errors, "num_words": counts.num_reference_words,
        "fallback": result.fallback, "decode_cpu_s": round(decode_s, 4),
    }  # fmt: skip


def main() -> None:
    """Measures, or prints the table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifests", type=Path, nargs="*")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--variants", default=";".join(VARIANTS))
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    measure(
        speech_windows(given.manifests, limit=given.limit),
        given.model,
        given.output,
        given.variants.split(";"),
    )


if __name__ == "__main__":
    main()
