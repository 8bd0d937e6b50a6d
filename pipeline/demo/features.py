"""Log-mel features for training, with frequencies warped as if by another vocal tract."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from pipeline.demo.speech import SAMPLE_RATE

NUM_MELS = 80

_NUM_BINS = 201
_TOP_HZ = SAMPLE_RATE / 2
_WARPED_SHARE = 0.5
_FORMANTS_HZ = (600.0, 1500.0, 2600.0, 3800.0)  # about where a voice's first four stand
_LEAST, _MOST = 0.87, 1.15  # what each of them is multiplied by


def log_mel(samples: Tensor, bins: Tensor | None = None) -> Tensor:
    """Features [B, 80, samples / 160] of whole windows [B, samples], equal to WhisperFeatureExtractor's.

    With bins [B, 201] of `draw_warp`, row b shows at frequency bin j what stands at bin bins[b, j].
    """
    spectrum = torch.stft(samples, 400, 160, window=torch.hann_window(400), return_complex=True)
    power = spectrum[..., :-1].abs() ** 2
    mel = _mel_filters() @ (power if bins is None else _warp(power, bins))
    log = mel.clamp(min=1e-10).log10()
    log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
    return (log + 4.0) / 4.0


def draw_warp(rng: random.Random) -> Tensor:
    """Bins [201] for `log_mel`: half of the time as they are, else each formant a little higher or lower.

    Vocal tract length perturbation (Jaitly and Hinton 2013), with a factor of its own for each formant.
    """
    places = torch.arange(_NUM_BINS, dtype=torch.float32)
    if rng.random() >= _WARPED_SHARE:
        return places
    heard_hz = [formant * rng.uniform(_LEAST, _MOST) for formant in _FORMANTS_HZ]
    scale = (_NUM_BINS - 1) / _TOP_HZ
    heard, spoken = (np.array([0.0, *hz, _TOP_HZ]) * scale for hz in (heard_hz, _FORMANTS_HZ))
    return torch.from_numpy(np.interp(places.numpy(), heard, spoken).astype(np.float32))


def _warp(power: Tensor, bins: Tensor) -> Tensor:
    """Rows of power [B, 201, T] at fractional bins, linear between neighbours."""
    below = bins.long().clamp(max=_NUM_BINS - 2)
    part = (bins - below)[..., None]
    rows = torch.arange(len(power))[:, None]
    return power[rows, below] * (1 - part) + power[rows, below + 1] * part


@cache
def _mel_filters() -> Tensor:
    bank = mel_filter_bank(_NUM_BINS, NUM_MELS, 0.0, _TOP_HZ, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(bank.T.astype(np.float32))
