"""Windows and results at their places in recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.engine.languages import join_texts

if TYPE_CHECKING:
    from pipeline.engine.results import WindowResult

PAUSE_S = 2.0  # without speech, that no word reaches over
NEAR_S = 0.5  # by which voice activity and an alignment differ
Span = tuple[float, float]
Root = tuple[int, float]  # recording and start of a window, the same for those cut out of it


@dataclass(frozen=True, kw_only=True)
class PlacedWindow:
    """A window of a recording; times are seconds in the recording.

    speech: where voice activity heard speech; all of the window where it was not asked.
    root_s: the start of the window that this one was cut out of, its own start for any other.
    """

    recording: int
    start_s: float
    end_s: float
    samples: np.ndarray  # int16 [time]
    speech: tuple[Span, ...]
    root_s: float

    @property
    def root(self) -> Root:
        """What a window and those cut out of it have in common: recording and place."""
        return self.recording, self.root_s

    @property
    def speech_s(self) -> float:
        """Seconds of speech."""
        return sum(end - start for start, end in self.speech)

    def times(self, start_s: float, end_s: float) -> Span:
        """Times in the recording of something said at these of the window.

        An alignment leaves no room between words, so that one said after a pause seems to begin before it.
        """
        start_s, end_s = self.start_s + start_s, min(self.start_s + end_s, self.end_s)
        for (_, pause_s), (again_s, _) in pairwise(self.speech):
            if again_s - pause_s >= PAUSE_S and pause_s - NEAR_S <= start_s < again_s < end_s:
                start_s = again_s
        return round(start_s, 3), round(end_s, 3)

    def piece(self, start_s: float, end_s: float, speech: Sequence[Span]) -> PlacedWindow:
        """A stretch of this window as a window."""
        first, last = (round((time - self.start_s) * SAMPLE_RATE) for time in (start_s, end_s))
        samples = self.samples[first:last]
        return replace(self, start_s=start_s, end_s=end_s, samples=samples, speech=tuple(speech))


@dataclass(frozen=True, kw_only=True)
class PlacedResult:
    """What the engine said of one window. is_aside: another result says what was said there."""

    window: PlacedWindow
    result: WindowResult
    is_aside: bool = False

    def set_aside(self, why: str) -> PlacedResult:
        """The same without its text, for what it took."""
        without = replace(self.result, text="", segments=(), spoken=(), fallback=why)
        return replace(self, result=without, is_aside=True)


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


def window_seed(recording: Mapping[str, Any], start_s: float) -> int:
    """The seed of a window's sampling: a function of recording, channel and offset alone."""
    key = f"{recording['recording_id']}\0{recording['channel']}\0{start_s:.3f}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")


def first_pass_logprob(results: Sequence[PlacedResult]) -> float | None:
    """The mean log-probability of a window's text as it was first decoded.

    None where it has none, or only what came of decoding it again.
    """
    first = results[0].result
    return first.avg_logprob if first.text and first.fallback is None else None


def text_logprob(results: Iterable[PlacedResult]) -> float | None:
    """The mean log-probability of a token of the text that windows ended with; None without text."""
    said = [done.result for done in results if done.result.text]
    tokens = sum(result.num_tokens for result in said)
    return sum(result.avg_logprob * result.num_tokens for result in said) / tokens if tokens else None


def text_of(results: Iterable[PlacedResult]) -> str:
    """The text of windows in the order of time, as their languages join words."""
    return join_texts((done.result.text, done.result.written_language) for done in results)
