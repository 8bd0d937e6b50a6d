"""The least that a data plane has to do: decode, resample and find speech, in one process and nothing else.

Run as `python -m pipeline.benchmark.plane.alone FOLDER`; it prints CPU seconds and hours of audio as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.reading.audio import DecodeRequest
from pipeline.reading.blocks import open_range
from pipeline.reading.containers import sniff
from pipeline.reading.decoder_process import CHILD_SETTINGS
from pipeline.reading.resampling import Conversion
from pipeline.reading.shard_reader import BATCH_S
from pipeline.reading.soundfile_reader import open_soundfile
from pipeline.reading.voice_activity import VoiceActivity

MOST_S = 3600.0  # of audio: enough for a rate
MOST_OF_ONE_S = MOST_S / 2  # what follows a long recording must have its share


def run_alone(folder: Path) -> float:
    """CPU seconds for an hour of the audio of a folder, in a process with the settings of a decoder's."""
    command = [sys.executable, "-m", "pipeline.benchmark.plane.alone", str(folder)]
    done = subprocess.run(
        command, env={**os.environ, **CHILD_SETTINGS}, stdout=subprocess.PIPE, check=True, text=True
    )
    found = json.loads(done.stdout)
    return found["cpu_s"] / found["hours"]


def _measure(folder: Path) -> dict[str, float]:
    voice_activity = VoiceActivity()
    voice_activity.speech_spans([np.zeros(SAMPLE_RATE, np.int16)])
    started, num_samples = time.process_time(), 0
    for batch in _batches(folder):
        voice_activity.speech_spans(batch)
        num_samples += sum(map(len, batch))
    return {"cpu_s": time.process_time() - started, "hours": num_samples / SAMPLE_RATE / 3600}


def _batches(folder: Path) -> Iterator[list[np.ndarray]]:
    """Decoded recordings, so many together as a reader would take."""
    batch: list[np.ndarray] = []
    waiting_s = total_s = 0.0
    for path in sorted(folder.iterdir()):
        batch.append(_decode(path))
        waiting_s += len(batch[-1]) / SAMPLE_RATE
        if waiting_s >= BATCH_S:
            yield batch
            total_s, batch, waiting_s = total_s + waiting_s, [], 0.0
            if total_s >= MOST_S:
                return
    if batch:
        yield batch


def _decode(path: Path) -> np.ndarray:
    """int16 [time]."""
    with path.open("rb") as file:
        length = path.stat().st_size
        container = sniff(open_range(file.fileno(), 0, length), length)
        stream = open_soundfile(file.fileno(), 0, length, container, 0.0)
        return np.concatenate(list(Conversion(DecodeRequest(max_s=MOST_OF_ONE_S)).convert(stream)))[:, 0]


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]))))
