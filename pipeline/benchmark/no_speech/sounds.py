"""Sounds that nobody speaks in, made here: noise, hum, tones, music, breath, keys, rooms, silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.engine.audio import SAMPLE_RATE

LEVELS_DB = (-60.0, -45.0, -30.0, -15.0)  # of full scale, root mean square
LENGTHS_S = (5.0, 28.0)
SEED = 22


@dataclass(frozen=True, kw_only=True)
class Sound:
    """One sound: int16, mono, 16 kHz."""

    kind: str
    name: str
    samples: np.ndarray


def sounds() -> Iterator[Sound]:
    """Every kind at every level and length, the same every time; and digital silence."""
    for kind, make in KINDS.items():
        for level_db in LEVELS_DB:
            for length_s in LENGTHS_S:
                name = f"{kind.replace(' ', '-')}_{-level_db:.0f}dB_{length_s:g}s"
                drawn = np.random.default_rng([SEED, *name.encode()])
                wave = make(drawn, round(length_s * SAMPLE_RATE))
                yield Sound(kind=kind, name=name, samples=_at_level(wave, level_db))
    for length_s in LENGTHS_S:
        silence = np.zeros(round(length_s * SAMPLE_RATE), np.int16)
        yield Sound(kind="silence", name=f"silence_{length_s:g}s", samples=silence)


def _at_level(wave: np.ndarray, level_db: float) -> np.ndarray:
    scaled = wave * (10 ** (level_db / 20) / np.sqrt(np.mean(wave**2)))
    return np.clip(np.round(32768 * scaled), -32768, 32767).astype(np.int16)


def _coloured(drawn: np.random.Generator, num: int, slope: float) -> np.ndarray:
    """Noise whose power falls with frequency to the power of `slope`: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(drawn.standard_normal(num))
    frequencies = np.fft.rfftfreq(num, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum / np.maximum(frequencies, 20.0) ** (slope / 2), num)


def _seconds(num: int) -> np.ndarray:
    return np.arange(num) / SAMPLE_RATE


def _hum(drawn: np.random.Generator, num: int) -> np.ndarray:
    """Mains and its harmonics."""
    mains = drawn.choice([50.0, 60.0])
    phases = drawn.uniform(0, 2 * np.pi, 8)
    waves = [np.sin(2 * np.pi * mains * n * _seconds(num) + p) / n for n, p in enumerate(phases, 1)]
    return np.sum(waves, axis=0)


def _beeps(drawn: np.random.Generator, num: int) -> np.ndarray:
    """Pairs of tones, as a telephone dials, with pauses."""
    wave, on, period = np.zeros(num), SAMPLE_RATE // 5, SAMPLE_RATE // 2
    for start in range(0, num - on, period):
        pair = drawn.choice([697.0, 770.0, 852.0, 941.0]), drawn.choice([1209.0, 1336.0, 1477.0])
        wave[start : start + on] = sum(np.sin(2 * np.pi * tone * _seconds(on)) for tone in pair)
    return wave


def _sweep(drawn: np.random.Generator, num: int) -> np.ndarray:
    """A tone that rises by octaves."""
    first, octaves = drawn.uniform(80.0, 200.0), drawn.uniform(3.0, 5.0)
    return np.sin(2 * np.pi * np.cumsum(first * 2 ** np.linspace(0, octaves, num)) / SAMPLE_RATE)


def _chords(drawn: np.random.Generator, num: int) -> np.ndarray:
    """Three notes with their overtones at a time, plucked, over a bass."""
    wave, beat = np.zeros(num), round(SAMPLE_RATE * drawn.uniform(0.35, 0.7))
    for start in range(0, num, beat):
        root = drawn.choice([0, 5, 7, 9])
        last = min(num, start + 4 * beat)
        time = _seconds(last - start)
        for step in (root - 12, root, root + 4, root + 7):
            tone = 220.0 * 2 ** (step / 12)
            for n in range(1, 6):
                wave[start:last] += np.sin(2 * np.pi * n * tone * time) * np.exp(-2.0 * n * time) / n
    return wave


def _drums(drawn: np.random.Generator, num: int) -> np.ndarray:
    """Beats of a low and a bright drum."""
    beat = round(SAMPLE_RATE * drawn.uniform(0.2, 0.4))
    time = _seconds(beat)
    low = np.sin(2 * np.pi * 60.0 * time) * np.exp(-12.0 * time)
    wave = np.zeros(num + beat)
    for number, start in enumerate(range(0, num, beat)):
        bright = drawn.standard_normal(beat) * np.exp(-40.0 * time)
        wave[start : start + beat] += low if number % 2 else 0.5 * bright
    return wave[:num]


def _breath(drawn: np.random.Generator, num: int) -> np.ndarray:
    """Noise of the breath, in and out, three seconds and a half each time."""
    phase = 2 * np.pi * _seconds(num) / 3.5 + drawn.uniform(0, 2 * np.pi)
    return _coloured(drawn, num, 1.0) * np.maximum(0.0, np.sin(phase)) ** 2


def _clicks(drawn: np.random.Generator, num: int) -> np.ndarray:
    """Keys of a keyboard over the noise of a room."""
    wave = 0.02 * drawn.standard_normal(num)
    length = SAMPLE_RATE // 50
    for start in np.cumsum(drawn.exponential(SAMPLE_RATE / 6, max(1, num // 2000))).astype(int):
        if start + length < num:
            wave[start : start + length] += drawn.standard_normal(length) * np.exp(-np.arange(length) / 60)
    return wave


def _room(drawn: np.random.Generator, num: int) -> np.ndarray:
    """A fan, with knocks that a room echoes."""
    echo = drawn.standard_normal(SAMPLE_RATE // 2) * np.exp(-_seconds(SAMPLE_RATE // 2) / 0.08)
    knocks = np.zeros(num)
    knocks[drawn.integers(0, num, max(1, num // (2 * SAMPLE_RATE)))] = drawn.uniform(0.2, 1.0)
    whole = 2 ** int(np.ceil(np.log2(num + len(echo))))
    echoed = np.fft.irfft(np.fft.rfft(knocks, whole) * np.fft.rfft(echo, whole), whole)[:num]
    fan = _coloured(drawn, num, 1.5)
    return echoed + 0.2 * fan / np.abs(fan).max()


KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "white noise": lambda drawn, num: _coloured(drawn, num, 0.0),
    "pink noise": lambda drawn, num: _coloured(drawn, num, 1.0),
    "brown noise": lambda drawn, num: _coloured(drawn, num, 2.0),
    "hum": _hum,
    "beeps": _beeps,
    "sweep": _sweep,
    "chords": _chords,
    "drums": _drums,
    "breath": _breath,
    "keyboard": _clicks,
    "room": _room,
}
