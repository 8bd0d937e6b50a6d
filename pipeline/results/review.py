"""Doubtful passages: segments, ranked by the errors that an hour of listening is likely to find."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.engine.languages import UNSPACED_LANGUAGES
from pipeline.metrics.wer import normalised
from pipeline.results.recordings import WholeRecording

JUMP_S = 1.0  # of a listener, for each passage
FAST, SLOW = 20.0, 5.0  # characters a second, beyond which text does not fit what is said
REPETITIVE = 1.8  # compression ratio; Whisper gives up at 2.4
DENSE_SCRIPT = 2.5  # what a character of Chinese or Japanese counts for beside a letter

# Signs of error by name: what is shown as the reason, and from which value on.
REASONS = {
    "logprob": ("the model was unsure", 0.5),
    "window": ("unsure of the half minute around it", 0.5),
    "fallback": ("it was decoded again", 0.5),
    "repetitive": ("it repeats itself", 0.2),
    "no_speech": ("perhaps nobody speaks", 0.5),
    "doubt": ("nobody was heard there", 1.0),
    "language": ("the language is unsure", 0.4),
    "fast": ("more text than the time has room for", 0.2),
    "slow": ("little text for the time", 0.3),
    "short": ("it is a single word", 1.0),
}
# How much each raises the log-odds of a wrong word: docs/review.md says what they were fitted to.
WEIGHTS = {
    "bias": -2.95, "logprob": 2.61, "window": 2.24, "fallback": 0.25, "repetitive": 1.28, "no_speech": 0.42,
    "doubt": 1.0, "language": 0.5, "fast": 0.49, "slow": 0.27, "short": 0.11,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A segment to listen to. Times in seconds in the recording.

    error_rate: the share of its words that is likely to be wrong, from 0 to 1. reasons: what speaks against
    it, the weightiest first.
    """

    recording_id: str
    uri: str
    channel: int
    speaker: str | None
    language: str | None
    start_s: float
    end_s: float
    text: str
    error_rate: float
    expected_errors: float
    reasons: tuple[str, ...]
    avg_logprob: float
    fallback: str | None

    @property
    def listening_s(self) -> float:
        """What it takes to find the place and to hear it."""
        return self.end_s - self.start_s + JUMP_S


def passages(recording: WholeRecording, weights: Mapping[str, float] = WEIGHTS) -> list[Passage]:
    """The segments of a recording with what speaks against them, in the order of time."""
    return [_passage(recording, segment, weights) for segment in recording.segments]


def ranked(found: Iterable[Passage]) -> list[Passage]:
    """Passages in the order in which listening finds most errors in the least time; ties by place."""

    def rank(one: Passage) -> tuple[float, str, float, int]:
        return -one.expected_errors / one.listening_s, one.recording_id, one.start_s, one.channel

    return sorted(found, key=rank)


def _passage(recording: WholeRecording, segment: Mapping[str, Any], weights: Mapping[str, float]) -> Passage:
    signs = signs_of(recording, segment)
    shares = {name: weights[name] * value for name, value in signs.items()}
    error_rate = 1 / (1 + math.exp(-weights["bias"] - sum(shares.values())))
    notable = [name for name, (_, least) in REASONS.items() if signs[name] >= least]
    return Passage(
        recording_id=recording.recording_id,
        uri=recording.uri,
        channel=segment["channel"],
        speaker=recording.speakers.get(segment["channel"]),
        language=recording.language,
        start_s=segment["start_s"],
        end_s=segment["end_s"],
        text=segment["text"],
        error_rate=error_rate,
        expected_errors=error_rate * num_units(segment["text"], recording.text_language),
        reasons=tuple(REASONS[name][0] for name in sorted(notable, key=lambda name: -shares[name])),
        avg_logprob=segment["avg_logprob"],
        fallback=segment["fallback"],
    )


def num_units(text: str, language: str | None) -> int:
    """The words of a text as scoring counts them; characters in languages written without spaces."""
    text = normalised(text, language)
    return len(text) if language in UNSPACED_LANGUAGES else len(text.split())


def signs_of(recording: WholeRecording, segment: Mapping[str, Any]) -> dict[str, float]:
    """The signs of error of a segment by the names of `REASONS`, each from 0 (none) to about 2."""
    language = recording.text_language
    duration_s = max(0.1, segment["end_s"] - segment["start_s"])
    letters = sum(not c.isspace() for c in segment["text"]) * (
        DENSE_SCRIPT if language in {"zh", "yue", "ja"} else 1.0
    )
    sure = recording.language_probability
    return {
        "logprob": min(2.0, -_logprob(segment)),
        "window": min(2.0, -segment["avg_logprob"]),
        "fallback": float(segment["fallback"] is not None),
        "repetitive": min(2.0, max(0.0, segment["compression_ratio"] - REPETITIVE)),
        "no_speech": segment["no_speech_prob"],
        "doubt": float(segment.get("doubt") is not None),
        "language": 0.0 if sure is None else 1.0 - sure,
        "fast": min(2.0, max(0.0, letters / duration_s / FAST - 1.0)),
        "slow": max(0.0, 1.0 - letters / duration_s / SLOW),
        "short": 1.0 / max(1, num_units(segment["text"], language)),
    }


def _logprob(segment: Mapping[str, Any]) -> float:
    """The mean log-probability of a segment's words where they are known, else that of its window."""
    words: Sequence[Mapping[str, Any]] = segment["words"] or ()
    if not words:
        return float(segment["avg_logprob"])
    return sum(math.log(max(1e-3, word["probability"])) for word in words) / len(words)
