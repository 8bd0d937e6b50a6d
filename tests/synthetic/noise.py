"""Noise, hum and what else happens to speech on its way into a file."""

from __future__ import annotations

import numpy as np
import soxr

from tests.synthetic.speech import SAMPLE_RATE

_SLOPES = (0.0, 0.3, 0.5, 1.0)  # amplitude falls as frequency^-slope: white to brown
_HUM_SHARE = 0.2
_LOWEST_HZ = 20
_TELEPHONE_RATE = 8_000
_NUM_CORNERS = 8


def coloured_noise(rng: np.random.Generator, num_samples: int, slope: float) -> np.ndarray:
    """Noise of unit power whose amplitude falls as frequency^-slope: 0 is white, 0.5 pink, 1 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples, dtype=np.float32))
    spectrum[0] = 0
    bins = np.maximum(np.arange(len(spectrum)), num_samples * _LOWEST_HZ / SAMPLE_RATE)
    return _unit_power(np.fft.irfft(spectrum * bins**-slope, num_samples))


def hum(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Mains hum of unit power: 50 or 60 Hz and some harmonics."""
    time_s = np.arange(num_samples, dtype=np.float32) / SAMPLE_RATE
    base_hz = rng.choice([50.0, 60.0])
    harmonics = range(1, int(rng.integers(2, 8)))
    return _unit_power(sum(np.sin(2 * np.pi * (base_hz * k * time_s + rng.random())) / k for k in harmonics))


def background(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Noise of a random colour, now and then under hum, of unit power."""
    noise = coloured_noise(rng, num_samples, float(rng.choice(_SLOPES)))
    return noise if rng.random() >= _HUM_SHARE else 0.8 * hum(rng, num_samples) + 0.6 * noise


def add_noise(rng: np.random.Generator, samples: np.ndarray, snr_db: float) -> np.ndarray:
    """`samples` with background `snr_db` below the mean power of their audible parts."""
    audible = samples[np.abs(samples) > 1e-4]
    level = float(np.sqrt(np.mean(audible**2))) if len(audible) else 0.1
    return samples + level * 10 ** (-snr_db / 20) * background(rng, len(samples))


def add_echo(rng: np.random.Generator, samples: np.ndarray) -> np.ndarray:
    """`samples` and their reflection off a wall 3 to 25 m away, at 5 to 25 % of their level."""
    delay = int(rng.uniform(0.02, 0.15) * SAMPLE_RATE)
    reflected = np.concatenate([np.zeros(delay, np.float32), samples[:-delay]])
    return samples + np.float32(rng.uniform(0.05, 0.25)) * reflected


def recolour(rng: np.random.Generator, samples: np.ndarray) -> np.ndarray:
    """`samples` through a microphone that prefers some frequencies to others, by up to 6 dB either way."""
    spectrum = np.fft.rfft(samples)
    corners = np.linspace(0, len(spectrum) - 1, _NUM_CORNERS)
    gain_db = np.interp(np.arange(len(spectrum)), corners, rng.uniform(-6, 6, _NUM_CORNERS))
    return np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(samples)).astype(np.float32)


def degrade(rng: np.random.Generator, samples: np.ndarray) -> np.ndarray:
    """What training does to a clean scene: each of these by chance.

    An echo, a microphone of another colour, noise at 5 to 35 dB, digital zeros after the last sound (a padded
    window), a telephone band, and always a gain of 0 to -14 dB. Never clips.
    """
    end = int(np.flatnonzero(samples)[-1]) + 1 if samples.any() else len(samples)
    if rng.random() < 0.3:
        samples = add_echo(rng, samples)
    if rng.random() < 0.4:
        samples = recolour(rng, samples)
    if rng.random() < 0.5:
        samples = add_noise(rng, samples, float(rng.uniform(5, 35)))
    if rng.random() < 0.5:
        samples = np.where(np.arange(len(samples)) < end, samples, np.float32(0))
    if rng.random() < 0.05:
        narrow = soxr.resample(samples, SAMPLE_RATE, _TELEPHONE_RATE)
        samples = np.resize(soxr.resample(narrow, _TELEPHONE_RATE, SAMPLE_RATE), len(samples))
    samples = samples * np.float32(10 ** (-rng.uniform(0, 14) / 20))
    return (samples / max(1.0, float(np.abs(samples).max()))).astype(np.float32)


def empty_room(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """A window without speech: a fifth of them digital zero, the rest background from faint to loud."""
    level = 0.0 if rng.random() < 0.2 else 10 ** rng.uniform(-4.0, -0.7)
    samples = np.float32(level) * background(rng, num_samples)
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


def _unit_power(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples, dtype=np.float32)
    return samples / max(float(samples.std()), 1e-9)
