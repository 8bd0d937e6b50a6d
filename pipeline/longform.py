"""Windows at their places in recordings, and through the engine with the tails that it left."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from pipeline.engine.results import WindowResult
    from pipeline.engine.sparsify.level import Level
from pipeline.engine.audio import SAMPLE_RATE
from pipeline.engine.languages import join_texts

MAX_RESUMES = 4  # further windows that may be cut out of one window's tail
MIN_TAIL_S = 1.0  # speech shorter than this after the last timestamp is not worth another window


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
        levels: Level | Sequence[Level | None] | None = None,
        prompts: Sequence[str | None] | None = None,
    ) -> list[WindowResult]:
        """One result per window, in order; `levels` and `prompts` None are what the engine was made for."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlacedWindow:
    """A window of a recording; times are seconds in the recording.

    root_s is the start of the window that a tail was cut out of, its own start for any other.
    """

    recording: int
    start_s: float
    end_s: float
    samples: np.ndarray  # int16 [time]
    speech: tuple[tuple[float, float], ...]
    root_s: float

    @property
    def root(self) -> tuple[int, float]:
        """What a window and its tails have in common: recording and place."""
        return self.recording, self.root_s

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
            root_s=window["start_s"],
        )
        for window in row["windows"].as_py()
    ]


def transcribe_windows(
    windows: Sequence[PlacedWindow],
    recordings: Sequence[Mapping[str, Any]],
    engine: Transcriber,
    language: str | Mapping[int, str | None],
    level: Level | None = None,
) -> list[PlacedResult]:
    """All windows, and the tails of those whose text ended early, in the order of time.

    recordings: rows of `READ_RECORDING`; the language and the prompt of one come before what is asked of all.
    language: a code, `auto`, or the code of each recording by its index. level: how sparse they are; None: as
    the engine was made.
    """
    ask = _EngineAtLevel(recordings, engine, level)
    ask_tails = _EngineAtLevel(recordings, engine, None if level is None else level.of_tails)
    known: dict[int, str | None]
    if isinstance(language, str):
        known = {} if language == "auto" else dict.fromkeys(range(len(recordings)), language)
    else:
        known = dict(language)
    known |= {index: row["language"] for index, row in enumerate(recordings) if row.get("language")}
    first = [window for window in _first_windows(windows) if window.recording not in known]
    results = ask(first, known)
    known |= {done.window.recording: done.result.language for done in results}
    chosen = {id(window) for window in first}
    results += ask([window for window in windows if id(window) not in chosen], known)
    pending = _tails(results)
    for _ in range(MAX_RESUMES):
        if not pending:
            break
        more = ask_tails(pending, known)
        results += more
        pending = _tails(more)
    return sorted(results, key=lambda done: (done.window.recording, done.window.start_s))


def _first_windows(windows: Sequence[PlacedWindow]) -> list[PlacedWindow]:
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


@dataclass(frozen=True)
class _EngineAtLevel:
    """The engine, asked about windows of some recordings at one level."""

    recordings: Sequence[Mapping[str, Any]]
    engine: Transcriber
    level: Level | None

    def __call__(
        self, windows: Sequence[PlacedWindow], known: Mapping[int, str | None]
    ) -> list[PlacedResult]:
        if not windows:
            return []
        results = self.engine.transcribe(
            [window.samples for window in windows],
            languages=[known.get(window.recording) for window in windows],
            seeds=[window_seed(self.recordings[window.recording], window.start_s) for window in windows],
            levels=self.level,
            **self._prompts(windows),
        )
        return [PlacedResult(window=w, result=r) for w, r in zip(windows, results, strict=True)]

    def _prompts(self, windows: Sequence[PlacedWindow]) -> dict[str, Any]:
        """The prompts of manifests, where there are any."""
        prompts = [self.recordings[window.recording].get("prompt") for window in windows]
        return {"prompts": prompts} if any(prompts) else {}


def window_seed(recording: Mapping[str, Any], start_s: float) -> int:
    """The seed of a window's sampling: a function of recording, channel and offset alone."""
    key = f"{recording['recording_id']}\0{recording['channel']}\0{start_s:.3f}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")


def _tails(results: Sequence[PlacedResult]) -> list[PlacedWindow]:
    tails = (
        done.window.tail(done.window.start_s + done.result.resume_s)
        for done in results
        if done.result.resume_s  # at 0.0 nothing was transcribed, and again would be the same
    )
    return [tail for tail in tails if tail is not None]


def first_pass_logprob(results: Sequence[PlacedResult]) -> float | None:
    """The mean log-probability of a window's text, its tails left out.

    None where it has none, or only what came of decoding it again.
    """
    first = results[0].result
    return first.avg_logprob if first.text and first.fallback is None else None


def text_of(results: Iterable[PlacedResult]) -> str:
    """The text of windows in the order of time, as their languages join words."""
    return join_texts((done.result.text, done.result.written_language) for done in results)
