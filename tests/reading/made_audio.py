"""Audio that the tests make: something that sounds like speech, in any container."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 16_000


@cache
def vowels(seconds: float, *, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A voice that sings syllables, a pulse train in changing formants: float32 in [-0.5, 0.5], read-only."""
    rng = np.random.default_rng(seed)
    num = round(seconds * rate)
    t = np.arange(num) / rate
    pitch = 120 * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    signal = np.zeros(num)
    syllable = np.floor(t * 4).astype(int)
    formants = rng.uniform((300, 900, 2200), (800, 1800, 3000), (syllable.max(initial=0) + 1, 3))[syllable]
    for harmonic in range(1, 20):
        frequency = harmonic * pitch
        gain = sum(1 / (1 + ((frequency - formants[:, i]) / 90) ** 2) / (i + 1) for i in range(3))
        signal += gain * np.sin(harmonic * phase)
    envelope = 0.15 + 0.85 * np.abs(np.sin(np.pi * 4 * t))
    signal = signal * envelope + 0.01 * rng.standard_normal(num)
    voice = (0.5 * signal / np.abs(signal).max(initial=1e-9)).astype(np.float32)
    voice.flags.writeable = False  # every test that asks for it has the same
    return voice


def write(path: Path, samples: np.ndarray, rate: int = RATE, **how) -> Path:
    """Write by soundfile; the container follows from the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = samples.shape[1] if samples.ndim > 1 else 1
    with soundfile.SoundFile(path, "w", rate, channels, **how) as file:
        for first in range(0, len(samples), rate):  # libsndfile crashes on minutes of Vorbis at once
            file.write(samples[first : first + rate])
    return path


def wav_bytes(samples: np.ndarray, rate: int = RATE, **how) -> bytes:
    """A WAV file in memory."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", **how)
    return buffer.getvalue()


def encode(path: Path, samples: np.ndarray, codec: str, rate: int = RATE, **options) -> Path:
    """Write mono float32 samples by FFmpeg; the container follows from the name."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, layout="mono", **options)
        frame = av.AudioFrame.from_ndarray(samples[None, :].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path
