"""A decoded shard through the engine: windows in, transcript rows and what they cost out."""

from __future__ import annotations

import hashlib
import math
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline.schema import SHARD_RESULT, TRANSCRIPTS, table_of

if TYPE_CHECKING:
    from pipeline.engine.results import WindowResult

SAMPLE_RATE = 16_000
MAX_RESUMES = 4  # further windows that may be cut out of one window's tail
MIN_TAIL_S = 1.0  # speech shorter than this after the last timestamp is not worth another window
UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})


class Transcriber(Protocol):
    """What this module needs of an engine."""

    model_name: str
    device: str

    def transcribe(
        self,
        windows: Sequence[np.ndarray],
        *,
        languages: Sequence[str | None] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[WindowResult]:
        """One result per window, in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlacedWindow:
    """A window of a recording; times are seconds in the recording."""

    recording: int
    start_s: float
    end_s: float
    samples: np.ndarray  # int16 [time]
    speech: tuple[tuple[float, float], ...]

    def tail(self, from_s: float) -> PlacedWindow | None:
        """What follows `from_s`, where it holds more than `MIN_TAIL_S` until its last speech."""
        if not self.speech or self.speech[-1][1] - from_s <= MIN_TAIL_S:
            return None
        first = round((from_s - self.start_s) * SAMPLE_RATE)
        speech = tuple((max(start, from_s), end) for start, end in self.speech if end > from_s)
        return replace(self, start_s=from_s, samples=self.samples[first:], speech=speech)


@dataclass(frozen=True, kw_only=True)
class PlacedResult:
    """What the engine said of one window."""

    window: PlacedWindow
    result: WindowResult


def transcribe_shard(shard: pa.Table, engine: Transcriber, *, language: str) -> pa.Table:
    """Transcribe one decoded shard.

    Args:
        shard: one row of `SHARD_AUDIO`.
        engine: the model.
        language: a code, or `auto`: each recording is in the language of its first window.

    Returns:
        One row of `SHARD_RESULT`.
    """
    started_at, started = datetime.now(UTC), time.perf_counter()
    row = {name: shard.column(name)[0] for name in shard.column_names}
    recordings = row["recordings"].as_py()
    results = transcribe_windows(placed_windows(row), recordings, engine, language)
    transcripts = [
        _transcript(recording, [r for r in results if r.window.recording == index], row, engine.model_name)
        for index, recording in enumerate(recordings)
    ]
    measures = _measures(results, engine) | {
        "wall_s": time.perf_counter() - started,
        "started_at": started_at,
    }
    return table_of(
        SHARD_RESULT,
        [
            {
                "shard_id": row["shard_id"].as_py(),
                "attempt": row["attempt"].as_py(),
                "transcripts": transcripts,
                "scorable": [recording["scorable"] for recording in recordings],
                "measures": measures,
                "overflow": row["overflow"].as_py(),
            }
        ],
    )


def placed_windows(row: dict[str, Any]) -> list[PlacedWindow]:
    """The windows of a `SHARD_AUDIO` row; their samples are views of its buffer."""
    samples = row["samples"].values.to_numpy(zero_copy_only=True)
    return [
        PlacedWindow(
            recording=window["recording"],
            start_s=window["start_s"],
            end_s=window["end_s"],
            samples=samples[window["first_sample"] : window["first_sample"] + window["num_samples"]],
            speech=tuple((span["start_s"], span["end_s"]) for span in window["speech"]),
        )
        for window in row["windows"].as_py()
    ]


def transcribe_windows(
    windows: list[PlacedWindow], recordings: list[dict[str, Any]], engine: Transcriber, language: str
) -> list[PlacedResult]:
    """All windows, and the tails of those whose text ended early, in the order of time.

    recordings: rows of `READ_RECORDING`. language: a code, or `auto`.
    """
    known: dict[int, str | None] = {}
    if language != "auto":
        known = dict.fromkeys(range(len(recordings)), language)
    first = _first_windows(windows) if language == "auto" else []
    first_results = _run(first, recordings, engine, known)
    known |= {done.window.recording: done.result.language for done in first_results}
    chosen = {id(window) for window in first}
    rest = [window for window in windows if id(window) not in chosen]
    results = first_results + _run(rest, recordings, engine, known)
    pending = _tails(results)
    for _ in range(MAX_RESUMES):
        if not pending:
            break
        more = _run(pending, recordings, engine, known)
        results += more
        pending = _tails(more)
    return sorted(results, key=lambda done: (done.window.recording, done.window.start_s))


def _first_windows(windows: list[PlacedWindow]) -> list[PlacedWindow]:
    """The window of each recording that its language is read from.

    It is the earliest one, unless a later one holds more than twice its speech: a ring tone says little.
    """
    best: dict[int, PlacedWindow] = {}
    for window in windows:
        chosen = best.get(window.recording)
        if chosen is None or _speech_s(window) > 2 * _speech_s(chosen):
            best[window.recording] = window
    return list(best.values())


def _speech_s(window: PlacedWindow) -> float:
    return sum(end - start for start, end in window.speech)


def _run(
    windows: list[PlacedWindow],
    recordings: list[dict[str, Any]],
    engine: Transcriber,
    known: dict[int, str | None],
) -> list[PlacedResult]:
    if not windows:
        return []
    results = engine.transcribe(
        [window.samples for window in windows],
        languages=[known.get(window.recording) for window in windows],
        seeds=[window_seed(recordings[window.recording], window.start_s) for window in windows],
    )
    return [PlacedResult(window=w, result=r) for w, r in zip(windows, results, strict=True)]


def window_seed(recording: dict[str, Any], start_s: float) -> int:
    """The seed of a window's sampling: a function of recording, channel and offset alone."""
    key = f"{recording['recording_id']}\0{recording['channel']}\0{start_s:.3f}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")


def _tails(results: list[PlacedResult]) -> list[PlacedWindow]:
    tails = (
        done.window.tail(done.window.start_s + done.result.resume_s)
        for done in results
        if done.result.resume_s  # at 0.0 nothing was transcribed, and again would be the same
    )
    return [tail for tail in tails if tail is not None]


def _transcript(
    recording: dict[str, Any], results: list[PlacedResult], row: dict[str, Any], model: str
) -> dict[str, Any]:
    """One row of `TRANSCRIPTS`, its counts still null."""
    failed = recording["error_type"] is not None
    probabilities = [done.result.language_probability for done in results]
    language = results[0].result.language if results else None
    values = {
        **recording,
        "shard_id": row["shard_id"].as_py(),
        "status": "failed" if failed else "ok",
        "language": language,
        "language_probability": max((p for p in probabilities if p is not None), default=None),
        "text": None if failed else join_text(results, language),
        "segments": None if failed else _segments(results),
        "model": model,
    }
    return {name: values.get(name) for name in TRANSCRIPTS.names}


def join_text(results: list[PlacedResult], language: str | None) -> str:
    """The text of windows in the order of time, as their language joins words."""
    texts = (done.result.text.strip() for done in results)
    return ("" if language in UNSPACED_LANGUAGES else " ").join(text for text in texts if text)


def _segments(results: list[PlacedResult]) -> list[dict[str, Any]]:
    """The segments of a recording in the order of time, their times those of the recording."""
    placed = [(done.window, done.result, segment) for done in results for segment in done.result.segments]
    return [
        {
            "id": index,
            "start_s": round(window.start_s + segment.start_s, 3),
            "end_s": round(min(window.start_s + segment.end_s, window.end_s), 3),
            "text": segment.text,
            "avg_logprob": segment.avg_logprob,
            "no_speech_prob": segment.no_speech_prob,
            "compression_ratio": segment.compression_ratio,
            "sparsity": result.sparsity,
            "fallback": result.fallback,
            "words": None,
        }
        for index, (window, result, segment) in enumerate(placed)
    ]


def _measures(results: list[PlacedResult], engine: Transcriber) -> dict[str, Any]:
    """What the device did for this shard: `MEASURES` without the times of the call."""
    found = [done.result for done in results]
    kept, positions = sum(r.kept_positions for r in found), sum(r.total_positions for r in found)
    return {
        "num_windows": len(found),
        "num_tokens": sum(r.num_tokens for r in found),
        "device_s": math.fsum(r.device_s for r in found),
        "kept_positions": kept,
        "total_positions": positions,
        "sparsity_mean": 1 - kept / positions if positions else None,
        "sparsity_min": min((r.sparsity for r in found), default=None),
        "sparsity_max": max((r.sparsity for r in found), default=None),
        "num_fallback": sum(r.fallback is not None for r in found),
        "device": engine.device,
        "host": socket.gethostname(),
        "model": engine.model_name,
    }
