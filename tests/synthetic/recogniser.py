"""The held-out sets through transformers' own generate(): the table of the model card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from pipeline.metrics.wer import Counts, count_errors
from tests.synthetic.speech import SAMPLE_RATE

_BATCH_SIZE = 8
_NEW_TOKENS = 400
_TIMESTAMP_STEP_S = 0.02


@dataclass(kw_only=True)
class SetResult:
    """Counts over the windows of one set."""

    name: str
    counts: Counts = field(default_factory=Counts)
    num_windows: int = 0
    num_right_language: int = 0
    num_empty: int = 0
    start_errors_s: list[float] = field(default_factory=list)

    def row(self) -> dict[str, object]:
        """The result as JSON values; null where a figure does not apply."""
        has_speech = self.counts.num_reference_words > 0
        return {
            "set": self.name,
            "num_windows": self.num_windows,
            "num_words": self.counts.num_reference_words,
            "wer": self.counts.wer,
            "num_insertions": self.counts.num_insertions,
            "num_deletions": self.counts.num_deletions,
            "language_right": self.num_right_language / self.num_windows if has_speech else None,
            "median_start_error_s": median(self.start_errors_s) if self.start_errors_s else None,
            "num_windows_with_text": self.num_windows - self.num_empty,
        }


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What generate() made of one window."""

    text: str
    language: str
    starts_s: tuple[float, ...]


class Recogniser:
    """A model folder behind transformers' generate(): greedy, float32, language by the model."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.device = device
        self.model = (
            WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        )
        self.processor = WhisperProcessor.from_pretrained(folder)
        self._languages = {
            token: name[2:-2] for name, token in self.model.generation_config.lang_to_id.items()
        }
        self._first_timestamp = self.model.generation_config.no_timestamps_token_id + 1

    @torch.inference_mode()
    def transcribe(self, windows: list[np.ndarray], *, timestamps: bool = True) -> list[Heard]:
        """Float32 windows of at most 30 s, mono, 16 kHz, in the same order."""
        features = self.processor(windows, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        rows = self.model.generate(
            features.to(self.device),
            task="transcribe",
            return_timestamps=timestamps,
            force_unique_generate_call=True,
            num_beams=1,
            do_sample=False,
            max_new_tokens=_NEW_TOKENS,
        )
        return [self._heard(row) for row in rows.tolist()]

    def _heard(self, row: list[int]) -> Heard:
        marks = [
            (token - self._first_timestamp) * _TIMESTAMP_STEP_S
            for token in row
            if token >= self._first_timestamp
        ]
        return Heard(
            text=self.processor.tokenizer.decode(row, skip_special_tokens=True).strip(),
            language=next((self._languages[token] for token in row if token in self._languages), ""),
            starts_s=tuple(marks[::2]),
        )


def evaluate(
    folder: Path, sets: Path, device: torch.device, *, timestamps: bool = True
) -> list[dict[str, object]]:
    """One row per set of `sets`, a split's folder as heldout.py writes it."""
    recogniser = Recogniser(folder, device)
    results: dict[str, SetResult] = {}
    for references in _batched(sets / "references.jsonl"):
        windows = [soundfile.read(sets / row["audio_filepath"], dtype="float32")[0] for row in references]
        for row, heard in zip(references, recogniser.transcribe(windows, timestamps=timestamps), strict=True):
            _count(results.setdefault(row["set"], SetResult(name=row["set"])), row, heard)
    return [result.row() for result in results.values()]


def _count(result: SetResult, reference: dict, heard: Heard) -> None:
    result.num_windows += 1
    result.counts += count_errors(reference["text"], heard.text, reference["language"])
    result.num_right_language += heard.language == reference["language"]
    result.num_empty += not heard.text
    true_starts = np.array([segment["start"] for segment in reference["segments"]])
    if len(true_starts):
        result.start_errors_s += [float(np.abs(true_starts - start).min()) for start in heard.starts_s]


def _batched(references: Path) -> Iterator[list[dict]]:
    rows = [json.loads(line) for line in references.read_text(encoding="utf-8").splitlines()]
    for first in range(0, len(rows), _BATCH_SIZE):
        yield rows[first : first + _BATCH_SIZE]


def as_table(rows: list[dict[str, object]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| set | windows | words | WER | language right | median start error | windows with text |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = (
            row["set"],
            row["num_windows"],
            row["num_words"],
            _shown(row["wer"], "{:.2%}"),
            _shown(row["language_right"], "{:.1%}"),
            _shown(row["median_start_error_s"], "{:.2f} s"),
            row["num_windows_with_text"],
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _shown(value: object, form: str) -> str:
    return "-" if value is None else form.format(value)
