"""Real weights on windows of real speech, on any device: texts, words and time, `generate` beside.

A GPU machine may have no audio library, so the windows travel in one file:

    python -m tests.studies.real_windows cut MANIFEST ... --output windows.npz --limit 256
    python -m tests.studies.real_windows run windows.npz --model FOLDER --output cuda.json
    python -m tests.studies.real_windows run windows.npz --model FOLDER --output cpu.json \
        --device cpu --dtype float32
    python -m tests.studies.real_windows compare cpu.json cuda.json

`run` needs torch, transformers, jiwer and whisper-normalizer. Times are of all but loading, after a few
windows that do not count.
"""

from __future__ import annotations

import argparse
import difflib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.engine import Engine, EngineOptions
from pipeline.engine.audio import SAMPLE_RATE
from pipeline.engine.model.weights import TORCH_DTYPES
from pipeline.engine.sparsify.level import Level
from pipeline.metrics.wer import count_errors

LEVELS = {
    "dense": None,
    "stride": Level(selector="stride", sparsity=0.5),
    "attention": Level(selector="attention", sparsity=0.5),
}
Run = Callable[[Sequence[np.ndarray], Sequence[str]], list[str]]


def cut(given: argparse.Namespace) -> None:
    """The first windows of a sample, as int16."""
    from tests.studies.speech_windows import speech_windows

    windows = speech_windows(given.manifests, limit=given.limit)
    samples = [(window.samples * 32767).round().astype(np.int16) for window in windows]
    np.savez(
        given.output,
        samples=np.concatenate(samples),
        lengths=[len(one) for one in samples],
        languages=[window.language for window in windows],
        references=[window.reference for window in windows],
    )


def ours(given: argparse.Namespace, level: Level | None) -> Run:
    """Our engine at one level, its gates and retries on."""
    options = EngineOptions(timestamps="none")
    engine = Engine.load(str(given.model), device=given.device, dtype=given.dtype, options=options)

    def run(windows: Sequence[np.ndarray], languages: Sequence[str]) -> list[str]:
        known = [one if engine.is_multilingual else None for one in languages]
        return [one.text for one in engine.transcribe(windows, languages=known, levels=level)]

    return run


def generate(given: argparse.Namespace, batch_size: int) -> Run:
    """transformers' `generate`, windows of one language a batch, its features on the device too."""
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    dtype = TORCH_DTYPES[given.dtype]
    processor = WhisperProcessor.from_pretrained(given.model)
    model = WhisperForConditionalGeneration.from_pretrained(given.model, dtype=dtype).to(given.device).eval()

    def texts_of(windows: Sequence[np.ndarray], language: str) -> list[str]:
        asked = (
            {"language": language, "task": "transcribe"} if model.generation_config.is_multilingual else {}
        )
        features = processor.feature_extractor(
            [one.astype(np.float32) / 32768 for one in windows],
            sampling_rate=SAMPLE_RATE, return_tensors="pt", device=given.device,
        )  # fmt: skip
        with torch.inference_mode():
            ids = model.generate(
                features.input_features.to(given.device, dtype), num_beams=1, do_sample=False, **asked
            )
        return processor.batch_decode(ids, skip_special_tokens=True)

    def run(windows: Sequence[np.ndarray], languages: Sequence[str]) -> list[str]:
        found: dict[int, str] = {}
        for language in set(languages):
            numbers = [number for number, one in enumerate(languages) if one == language]
            for first in range(0, len(numbers), batch_size):
                batch = numbers[first : first + batch_size]
                found |= zip(batch, texts_of([windows[number] for number in batch], language), strict=True)
        return [found[number] for number in range(len(windows))]

    return run


def run_all(given: argparse.Namespace) -> None:
    """Writes the JSON anew after every program."""
    stored = np.load(given.windows)
    windows = np.split(stored["samples"], np.cumsum(stored["lengths"])[:-1])
    languages, references = stored["languages"].tolist(), stored["references"].tolist()
    programs = {name: (ours, level) for name, level in LEVELS.items()}
    programs |= {f"generate, batch {size}": (generate, size) for size in given.batches}
    device = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    found: dict[str, Any] = {"device": device, "dtype": given.dtype, "model": given.model.name}
    audio_s = len(stored["samples"]) / SAMPLE_RATE
    for name, (make, setting) in programs.items():
        run = make(given, setting)
        run(windows[: given.warm], languages[: given.warm])
        started = time.perf_counter()
        texts = run(windows, languages)
        seconds = time.perf_counter() - started
        counts = [count_errors(*each) for each in zip(references, texts, languages, strict=True)]
        errors = sum(one.num_errors for one in counts), sum(one.num_reference_words for one in counts)
        figures = {"seconds": seconds, "rtfx": audio_s / seconds, "wer": errors[0] / errors[1]}
        print(name, {key: round(value, 4) for key, value in figures.items()}, flush=True)
        found[name] = {**figures, "num_windows": len(windows), "num_words": errors[1], "texts": texts}
        given.output.write_text(json.dumps(found, ensure_ascii=False, indent=1))
        del run


def compare(given: argparse.Namespace) -> None:
    """Prints how many texts are the same in both, and the share of words that differ."""
    one, other = (json.loads(path.read_text()) for path in given.files)
    for name in LEVELS:
        pairs = list(zip(one[name]["texts"], other[name]["texts"], strict=True))
        words = [(a.split(), b.split()) for a, b in pairs]
        matched = sum(
            block.size
            for a, b in words
            for block in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
        )
        changed = 1 - matched / max(1, sum(len(a) for a, _ in words))
        same = sum(a == b for a, b in pairs)
        print(f"{name}: {same} of {len(pairs)} texts the same, {changed:.2%} of words not")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    cutting = commands.add_parser("cut")
    cutting.add_argument("manifests", type=Path, nargs="+")
    cutting.add_argument("--limit", type=int, default=256)
    running = commands.add_parser("run")
    running.add_argument("windows", type=Path)
    running.add_argument("--model", type=Path, required=True)
    running.add_argument("--device", default="cuda")
    running.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    running.add_argument("--batches", type=int, nargs="*", default=[64, 256])
    running.add_argument("--warm", type=int, default=64)
    comparing = commands.add_parser("compare")
    comparing.add_argument("files", type=Path, nargs=2)
    for command, action in ((cutting, cut), (running, run_all), (comparing, compare)):
        command.set_defaults(action=action)
        if command is not comparing:
            command.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    given.action(given)


if __name__ == "__main__":
    main()
