"""Recordings in memory to transcripts: the engine for programs that bring their own data.

recogniser = Recogniser(Engine.load("openai/whisper-large-v3-turbo"))
(transcript,) = recogniser.transcribe([soundfile.read("a.wav", dtype="float32")])
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.longform.languages import speech_by_language
from pipeline.longform.placed import PlacedResult, PlacedWindow, text_of
from pipeline.longform.transcribe import transcribe_windows
from pipeline.reading.resampling import Resampler, to_int16
from pipeline.reading.voice_activity import VoiceActivity
from pipeline.reading.windows import cut_windows

if TYPE_CHECKING:
    from pipeline.engine.engine import Engine
    from pipeline.engine.results import Segment

Audio = tuple[np.ndarray, int]  # samples and Hz, as `soundfile.read` returns them


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What is said in a recording; times of `segments` and their words are seconds in it.

    text: "" where nobody speaks. language: the one with most speech, None where nobody speaks.
    """

    text: str
    language: str | None
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Recogniser:
    """An engine with what stands around it in a job: voice activity, windows, one language by recording.

    language: a code, `auto` (each recording has one) or `each` (each window has one).
    """

    engine: Engine
    language: str = "auto"

    @cached_property
    def _voice_activity(self) -> VoiceActivity:
        return VoiceActivity()

    def transcribe(
        self, recordings: Sequence[Audio], *, languages: Sequence[str | None] | None = None
    ) -> list[Transcript]:
        """One transcript per recording, in order; many at once keep the device busier than one.

        Args:
            recordings: samples of any length, [time] or [time, channels], float32 with full scale at 1 or
                int16, and their rate in Hz; channels are mixed.
            languages: the code of each recording; None: as the recogniser was made.

        Raises `ValueError` for samples of another shape or kind, or a language that the model lacks.
        """
        known = languages or [None] * len(recordings)
        rows = [
            {"recording_id": str(number), "channel": 0, "language": code} for number, code in enumerate(known)
        ]
        windows = self._windows([_at_16_khz(*recording) for recording in recordings])
        own: defaultdict[int, list[PlacedResult]] = defaultdict(list)
        for done in transcribe_windows(windows, rows, self.engine, self.language):
            own[done.window.recording].append(done)
        return [_transcript(own[number]) for number in range(len(recordings))]

    def _windows(self, recordings: Sequence[np.ndarray]) -> list[PlacedWindow]:
        spans = self._voice_activity.speech_spans(recordings)
        return [
            PlacedWindow(
                recording=number,
                start_s=window.start_s,
                end_s=window.end_s,
                samples=samples[round(window.start_s * SAMPLE_RATE) : round(window.end_s * SAMPLE_RATE)],
                speech=window.speech,
                root_s=window.start_s,
            )
            for number, (samples, speech) in enumerate(zip(recordings, spans, strict=True))
            for window in cut_windows(speech, samples)
        ]


def _at_16_khz(samples: np.ndarray, rate: int) -> np.ndarray:
    """Mono, int16 [time]."""
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or not (samples.dtype == np.int16 or samples.dtype.kind == "f"):
        raise ValueError(f"samples of shape {samples.shape}, {samples.dtype}: must be [time] or "
                         "[time, channels], float32 or int16")  # fmt: skip
    if samples.dtype == np.int16 and samples.ndim == 1 and rate == SAMPLE_RATE:
        return samples
    scale = 32768 if samples.dtype == np.int16 else 1
    channels = samples[:, None] if samples.ndim == 1 else samples
    mono = channels.mean(axis=1, keepdims=True, dtype=np.float32) / scale
    resampler = Resampler(rate, 1)
    return to_int16(np.concatenate([resampler.push(mono), resampler.finish()]))[:, 0]


def _transcript(results: Sequence[PlacedResult]) -> Transcript:
    return Transcript(
        text=text_of(results),
        language=next(iter(speech_by_language(results)), None),
        segments=tuple(segment for done in results for segment in _placed(done)),
    )


def _placed(done: PlacedResult) -> Iterator[Segment]:
    """The segments of a window at their times in the recording."""
    for segment in done.result.segments:
        start_s, end_s = done.window.times(segment.start_s, segment.end_s)
        words = segment.words
        if words is not None:
            times = [done.window.times(word.start_s, word.end_s) for word in words]
            words = tuple(
                replace(word, start_s=start_s, end_s=end_s)
                for word, (start_s, end_s) in zip(words, times, strict=True)
            )
        yield replace(segment, start_s=start_s, end_s=end_s, words=words)
