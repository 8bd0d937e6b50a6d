"""What `--no-speech` listens to: recordings cut into clips and sounds made here, with a manifest of all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from pipeline.benchmark.accuracy.corpus import NO_SPEECH, CorpusError, Spoken, read_corpus
from pipeline.benchmark.accuracy.programs import decoded
from pipeline.benchmark.no_speech.sounds import Sound, sounds
from pipeline.engine.audio import SAMPLE_RATE

CLIP_S = 10.0  # at most; each is one window


def write_clips(manifest: Path, folder: Path) -> Path:
    """Write what is heard, a WAV file for each window, and return its manifest.

    Raises CorpusError for a line where somebody speaks.
    """
    recordings = read_corpus(manifest)
    for one in recordings:
        if not one.is_silent:
            raise CorpusError(f"{manifest}: {one.file}: lang is {one.language}, it must be {NO_SPEECH}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_write(sound, folder) for sound in (*_recorded(recordings), *sounds())]
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _recorded(recordings: Sequence[Spoken]) -> Iterator[Sound]:
    """The recordings in equal pieces, under the names of their sets."""
    for number, one in enumerate(recordings):
        samples = np.round(32768 * decoded(one)).astype(np.int16)
        pieces = np.array_split(samples, max(1, math.ceil(len(samples) / SAMPLE_RATE / CLIP_S)))
        for place, piece in enumerate(pieces):
            name = f"{number:04d}_{one.path.stem}_{place:03d}"
            yield Sound(kind=f"recorded: {one.group}", name=name, samples=piece)


def _write(sound: Sound, folder: Path) -> dict[str, object]:
    file = f"{sound.name}.wav"
    soundfile.write(folder / file, sound.samples, SAMPLE_RATE)
    duration_s = len(sound.samples) / SAMPLE_RATE
    return {
        "audio_filepath": file, "text": "", "lang": NO_SPEECH, "duration": duration_s, "set": sound.kind
    }  # fmt: skip
