"""Synthetic speech: libespeak-ng in process, through ctypes, with the times of its words and phonemes.

One engine per process (the library keeps global state); the same request gives the same samples.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from dataclasses import dataclass

import numpy as np
import soxr

SAMPLE_RATE = 16_000

_SYNCHRONOUS, _PHONEME_EVENTS, _DONT_EXIT, _UTF8 = 2, 0x0001, 0x8000, 1  # speak_lib.h
_EVENT_END_OF_LIST, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_RATE, _PITCH, _RANGE = 1, 3, 4
_VOICES = {"en": "en-us", "es": "es"}
_SILENCE_LEVEL = 0.004  # of full scale: below it the ends of an utterance are trimmed


class SpeechUnavailableError(RuntimeError):
    """libespeak-ng is not installed, or it refuses a voice."""


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True, kw_only=True)
class Voice:
    """How to speak: espeak's variant ("" is the plain voice), words a minute, pitch and range 0-99."""

    language: str
    variant: str = ""
    rate: int = 170
    pitch: int = 50
    pitch_range: int = 50

    @property
    def name(self) -> str:
        accent = _VOICES[self.language]
        return f"{accent}+{self.variant}" if self.variant else accent


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One spoken sentence: samples (int16, mono, 16 kHz), the times of its words and phonemes."""

    text: str
    samples: np.ndarray
    word_starts_s: tuple[float, ...]
    word_ends_s: tuple[float, ...]
    phonemes: tuple[tuple[str, float], ...]

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE


def require_speech() -> None:
    """Fail early: raises SpeechUnavailableError where libespeak-ng cannot be used."""
    _engine()


def synthesize(text: str, voice: Voice) -> Utterance:
    """Speak one sentence of space-separated words.

    Raises:
        SpeechUnavailableError: libespeak-ng or the voice is missing.
    """
    engine = _engine()
    pcm, words, phonemes = engine.speak(text, voice)
    samples = soxr.resample(pcm.astype(np.float32) / 32768, engine.sample_rate, SAMPLE_RATE)
    first, last = _speech_bounds(samples)
    samples = samples[first:last]
    shift_s, end_s = first / SAMPLE_RATE, len(samples) / SAMPLE_RATE

    def clip(at_s: float) -> float:
        return float(min(max(at_s - shift_s, 0.0), end_s))

    starts = _word_starts(text, [(position, clip(at)) for position, at in words], end_s)
    return Utterance(
        text=text,
        samples=np.clip(samples * 32767, -32768, 32767).astype(np.int16),
        word_starts_s=starts,
        word_ends_s=(*starts[1:], end_s),
        phonemes=tuple((name, clip(at)) for name, at in phonemes),
    )


def _speech_bounds(samples: np.ndarray) -> tuple[int, int]:
    loud = np.flatnonzero(np.abs(samples) > _SILENCE_LEVEL)
    if not len(loud):
        raise SpeechUnavailableError("libespeak-ng returned no sound")
    return int(loud[0]), int(loud[-1]) + 1


def _word_starts(text: str, events: list[tuple[int, float]], end_s: float) -> tuple[float, ...]:
    """A start for each word; words espeak reports together ("of the") share the time by their characters."""
    positions = np.cumsum([0] + [len(word) + 1 for word in text.split(" ")])[:-1]
    known: dict[int, float] = {0: 0.0, len(text) + 1: end_s}
    for position, at in events:
        if position - 1 in positions and position > 1:
            known[position - 1] = at
    characters = sorted(known)
    times = np.maximum.accumulate([known[character] for character in characters])
    return tuple(float(start) for start in np.interp(positions, characters, times))


class _Engine:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.sample_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _DONT_EXIT)
        if self.sample_rate <= 0:
            raise SpeechUnavailableError("libespeak-ng found, but its voice data (espeak-ng-data) is missing")
        self._callback = _Callback(self._receive)  # kept: ctypes does not own it
        library.espeak_SetSynthCallback(self._callback)
        self._chunks: list[np.ndarray] = []
        self._words: list[tuple[int, float]] = []
        self._phonemes: list[tuple[str, float]] = []

    def _receive(self, samples, num_samples: int, events) -> int:  # type: ignore[no-untyped-def]
        if num_samples > 0 and samples:
            self._chunks.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            at = event.audio_position / 1000
            if event.type == _EVENT_WORD:
                self._words.append((event.text_position, at))
            elif event.type == _EVENT_PHONEME:
                self._phonemes.append((event.id.decode("utf-8", "replace"), at))
            index += 1
        return 0

    def speak(
        self, text: str, voice: Voice
    ) -> tuple[np.ndarray, list[tuple[int, float]], list[tuple[str, float]]]:
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise SpeechUnavailableError(f"libespeak-ng has no voice {voice.name!r}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks, self._words, self._phonemes = [], [], []
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        return np.concatenate(self._chunks), self._words, self._phonemes


@functools.cache
def _engine() -> _Engine:
    name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
    try:
        return _Engine(ctypes.CDLL(name))
    except OSError as exc:
        raise SpeechUnavailableError(
            "libespeak-ng is missing; install it with `apt-get install espeak-ng`"
        ) from exc
