"""An engine that only takes the time that a fast device would: what is left is the data plane's own."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.engine.results import WindowResult


class PacedEngine:
    """Stands in for `Engine`: one device, busy for audio seconds / rtfx, whoever calls.

    Every stretch in which the device was busy is a line `[start, end]` (Unix time, seconds) of a file of its
    process in `folder`.
    """

    model_name = "paced"
    device = "cpu"
    batch_size = 1
    num_calls = 1
    peak_memory_bytes = 0
    conditions_on_text = False
    revision = "none"
    languages = ("en",)

    def __init__(self, *, rtfx: float, folder: Path) -> None:
        self._rtfx = rtfx
        self._log = folder / f"{os.getpid()}-{time.time_ns()}.jsonl"
        self._turn = threading.Lock()

    def transcribe(self, windows: Sequence[np.ndarray], **_options: Any) -> list[WindowResult]:
        """Empty texts, after the time that the windows take."""
        busy_s = [len(samples) / SAMPLE_RATE / self._rtfx for samples in windows]
        with self._turn:
            started = time.time()
            time.sleep(sum(busy_s))
            with self._log.open("a") as log:
                log.write(json.dumps([started, time.time()]) + "\n")
        return [_result(seconds) for seconds in busy_s]

    def give_up(self) -> None:
        """Nothing lasts here."""


def busy_stretches(folder: Path) -> list[tuple[float, float]]:
    """What the engines of a run wrote down, in the order of time."""
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted((start, end) for start, end in map(json.loads, lines))


def busy_share(stretches: Sequence[tuple[float, float]]) -> float:
    """The share of the time between the first start and the last end in which the one device was busy."""
    between_s = max(end for _, end in stretches) - min(start for start, _ in stretches)
    return sum(end - start for start, end in stretches) / between_s


def _result(device_s: float) -> WindowResult:
    return WindowResult(
        text="",
        segments=(),
        language="en",
        text_language=None,
        language_probability=None,
        avg_logprob=0.0,
        no_speech_prob=0.0,
        compression_ratio=1.0,
        num_tokens=0,
        kept_positions=1500,
        total_positions=1500,
        fallback=None,
        device_s=device_s,
    )
