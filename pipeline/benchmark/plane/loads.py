"""The archives that the data plane is measured on: 16 kHz FLAC of the bundled speech over a noise floor."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from pipeline.demo import SPEECH
from pipeline.engine.audio import SAMPLE_RATE
from pipeline.reading.decoder import AudioDecoder
from pipeline.sources.opening import OpenRecording

FLOOR = 60.0  # of 32768: louder than what voice activity skips without a look, so that nothing is skipped
RAGGED_S = (3, 11, 47, 180, 600, 1500)  # a row of these, over and over
CLIP_S = 4
NORMAL_S = 600


def loads(hours: float) -> dict[str, list[int]]:
    """The lengths in seconds of the recordings of each archive; each holds about so many hours.

    `manifest` is `one long` with all lengths stated beforehand.
    """
    total_s = int(hours * 3600)
    row_s = sum(RAGGED_S)
    return {
        "normal": [NORMAL_S] * (total_s // NORMAL_S),
        "ragged": list(RAGGED_S) * max(1, total_s // row_s),
        "clips": [CLIP_S] * (total_s // CLIP_S),
        "one long": [total_s // 2, *[15] * (total_s // 30)],
        "manifest": [total_s // 2, *[15] * (total_s // 30)],
    }


def write_load(folder: Path, lengths: list[int], speech: np.ndarray) -> None:
    """Recordings of these lengths in seconds; equal lengths are one file under many names."""
    folder.mkdir(parents=True)
    written: dict[int, Path] = {}
    for number, seconds in enumerate(lengths):
        path = folder / f"{number:06}.flac"
        if seconds in written:
            os.link(written[seconds], path)
            continue
        samples = np.resize(speech, seconds * SAMPLE_RATE)
        soundfile.write(path, samples, SAMPLE_RATE)
        written[seconds] = path


def write_manifest(folder: Path, lengths: list[int]) -> Path:
    """A manifest, beside the folder, that states the lengths of its recordings in seconds."""
    path = folder.with_name(f"{folder.name}.jsonl")
    rows = zip(sorted(folder.iterdir()), lengths, strict=True)
    path.write_text(
        "".join(json.dumps({"audio_filepath": str(file), "duration": s}) + "\n" for file, s in rows)
    )
    return path


def bundled_speech() -> np.ndarray:
    """All bundled recordings one after the other over noise: int16 [time] at 16 kHz."""
    joined = np.concatenate(list(_decoded()))
    noise = np.random.default_rng(0).normal(0, FLOOR, len(joined))
    return np.clip(joined + noise, -32768, 32767).astype(np.int16)


def _decoded() -> Iterator[np.ndarray]:
    with AudioDecoder() as decoder:
        for path in sorted(SPEECH.iterdir()):
            if path.suffix in {".tsv", ".md"}:
                continue
            with path.open("rb") as file:
                source = OpenRecording(name=path.name, fd=file.fileno(), start=0, length=path.stat().st_size)
                yield decoder.decode(source).samples[0]
