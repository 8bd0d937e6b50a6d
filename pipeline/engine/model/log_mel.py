"""Samples to log-mel features, on the model's device.

Equal to transformers' WhisperFeatureExtractor to 1e-5: framed rfft instead of an STFT call, and only the
frames that hold samples are transformed (the rest of a short window is a constant).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.audio import SAMPLE_RATE

FFT_SIZE = 400
HOP = 160
FLOOR = 1e-10  # power under which openai/whisper audio.py clamps before the logarithm
MEL_STEP = np.log(6.4) / 27.0  # Slaney's: 27 mels from 1 to 6.4 kHz
RANGE = 8.0  # decades kept below the loudest bin, same source


def mel_filters(num_mels: int) -> np.ndarray:
    """Triangular filters on Slaney's mel scale, area-normalised: float64 [num_mels, 201], 0 to 8 kHz.

    Source: `librosa.filters.mel` with its defaults, as openai/whisper. transformers has the same, and
    takes 0.7 s to import.
    """
    edges = _slaney_hertz(np.linspace(0.0, _slaney_mel(SAMPLE_RATE / 2), num_mels + 2))
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.linspace(0.0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1)
    rising, falling = (bins - left) / (middle - left), (right - bins) / (right - middle)
    return np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (right - left)


def _slaney_mel(hertz: float) -> float:
    """Linear up to 1 kHz, which is 15, logarithmic above."""
    return 15.0 * hertz / 1000.0 if hertz < 1000.0 else 15.0 + np.log(hertz / 1000.0) / MEL_STEP


def _slaney_hertz(mels: np.ndarray) -> np.ndarray:
    return np.where(mels < 15.0, mels * 1000.0 / 15.0, 1000.0 * np.exp(MEL_STEP * (mels - 15.0)))


class Features(Protocol):
    """Windows of at most max_samples samples to features [batch, num_mels, frames]."""

    max_samples: int

    def __call__(self, windows: Sequence[np.ndarray]) -> Tensor: ...


class LogMel:
    """Log-mel features of windows at 16 kHz, padded with silence to `num_frames` frames of 10 ms."""

    def __init__(self, num_mels: int, num_frames: int, device: torch.device) -> None:
        self.num_mels = num_mels
        self.num_frames = num_frames
        self.max_samples = num_frames * HOP
        self._device = device
        self._window = torch.hann_window(FFT_SIZE, device=device)
        self._filters = torch.from_numpy(mel_filters(num_mels)).to(device, torch.float32)

    def __call__(self, windows: Sequence[np.ndarray]) -> Tensor:
        """Features of each window: float32 [batch, num_mels, num_frames] on the device.

        windows: float32 in -1..1 or int16, mono, at most `max_samples` samples.
        """
        return torch.stack([self._features(self._samples(window)) for window in windows])

    def _samples(self, window: np.ndarray) -> Tensor:
        writable = np.require(window, requirements=["C", "W"])  # torch takes no read-only memory
        samples = torch.from_numpy(writable)
        if self._device.type == "cuda":  # only pinned memory is copied while the device works
            samples = samples.pin_memory().to(self._device, non_blocking=True)
        return samples.float() / 32768.0 if samples.dtype == torch.int16 else samples

    def _features(self, samples: Tensor) -> Tensor:
        power = self._mel_power(samples)
        logs = power.clamp_(min=FLOOR).log10_()
        loudest = logs.max() if logs.numel() else torch.tensor(np.log10(FLOOR), device=self._device)
        features = torch.full((self.num_mels, self.num_frames), np.log10(FLOOR), device=self._device)
        features[:, : logs.shape[1]] = logs
        return torch.maximum(features, loudest - RANGE).add_(4.0).div_(4.0)

    def _mel_power(self, samples: Tensor) -> Tensor:
        """Mel power of the frames that see a sample: [num_mels, frames]."""
        half = FFT_SIZE // 2
        frames = min(self.num_frames, -(-(len(samples) + half) // HOP))
        signal = torch.zeros(self.max_samples + 2 * half, device=self._device)
        signal[half : half + len(samples)] = samples
        signal[:half] = signal[half + 1 : 2 * half + 1].flip(0)
        signal[-half:] = signal[-2 * half - 1 : -half - 1].flip(0)
        spectrum = torch.fft.rfft(signal.unfold(0, FFT_SIZE, HOP)[:frames] * self._window)
        return self._filters @ (spectrum.real.square() + spectrum.imag.square()).T
