"""Do all contenders say the same? Texts of the bundled speech by the bundled model, beside our float32."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import torch

from pipeline.benchmark.peers.contender import CaseSetup
from pipeline.benchmark.peers.seat import SeatError, seats
from pipeline.demo import SPEECH
from pipeline.engine.audio import SAMPLE_RATE
from pipeline.engine.model.log_mel import LogMel
from pipeline.engine.model.shape import Shape
from pipeline.engine.model.snapshot import resolve
from pipeline.engine.model.vocabulary import read_vocabulary
from pipeline.metrics.wer import count_errors, total
from pipeline.reading.decoder import AudioDecoder
from pipeline.reading.windows import even_windows
from pipeline.sources.opening import OpenRecording

REFERENCE = "f32"
BATCH_SIZE = 4
MAX_TOKENS = 220


def check_texts(names: Sequence[str], *, threads: int) -> dict[str, Any]:
    """Of each contender: windows with the very text of our float32, and word edits per word of it."""
    snapshot = resolve("demo")
    vocabulary = read_vocabulary(snapshot)
    inputs = _features(Shape.from_config(snapshot.config))
    texts: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # A copy: some peers write their own form of the model beside it.
        setting = CaseSetup(copytree(snapshot.path, root / "demo"), MAX_TOKENS, BATCH_SIZE, threads)
        ordered = [REFERENCE, *(name for name in names if name != REFERENCE)]
        for name, seat in seats(ordered, threads=threads).items():
            stack.enter_context(seat)
            try:
                seat.load(setting)
                tokens = [
                    row
                    for first in range(0, len(inputs), BATCH_SIZE)
                    for row in seat.run(inputs[first : first + BATCH_SIZE], features_inside=False).tokens
                ]
            except SeatError as error:
                failed[name] = str(error)
                continue
            texts[name] = [vocabulary.decode(row).strip() for row in tokens]
    rows = [{"contender": name, **_compared(found, texts[REFERENCE])} for name, found in texts.items()]
    for row in rows:
        print(
            f"{row['contender']:12} {row['same_windows']} of {row['windows']} windows the same, "
            f"{row['word_edits']} edits in {row['words']} words",
            file=sys.stderr,
        )
    return {"num_windows": len(inputs), "texts": rows, "failed": failed}


def _compared(found: list[str], reference: list[str]) -> dict[str, Any]:
    pairs = list(zip(found, reference, strict=True))
    counts = total(count_errors(theirs, ours, "en") for ours, theirs in pairs)
    return {
        "windows": len(pairs),
        "same_windows": sum(ours == theirs for ours, theirs in pairs),
        "words": counts.num_reference_words,
        "word_edits": counts.num_errors,
    }


def _features(shape: Shape) -> np.ndarray:
    """Log-mel features of the bundled speech in windows of 30 s: float32 [windows, num_mels, frames]."""
    windows = []
    with AudioDecoder() as decoder:
        for path in sorted(SPEECH.iterdir()):
            if path.suffix in {".tsv", ".md"}:
                continue
            with path.open("rb") as file:
                source = OpenRecording(name=path.name, fd=file.fileno(), start=0, length=path.stat().st_size)
                samples = decoder.decode(source).samples[0]
            for window in even_windows(len(samples) / SAMPLE_RATE):
                first, end = round(window.start_s * SAMPLE_RATE), round(window.end_s * SAMPLE_RATE)
                windows.append(np.ascontiguousarray(samples[first:end]))
    return LogMel(shape.num_mels, shape.num_frames, torch.device("cpu"))(windows).numpy()
