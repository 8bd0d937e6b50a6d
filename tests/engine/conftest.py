"""Random models of the true shapes and made-up sound; no network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.benchmark.random_model import KINDS, Kind, write_random_model
from pipeline.engine.decoding import unheard

TINY, TINY_EN = KINDS["tiny"], KINDS["tiny.en"]
# Mels and ids of large-v3 at the depth and width of tiny.
LARGE_V3 = replace(TINY, name="large-v3", num_languages=100, num_mels=128)
MINI = replace(TINY, name="mini", num_text=2000, dim=64, heads=2, encoder_layers=2, decoder_layers=2)
MINI_EN = replace(MINI, name="mini.en", num_text=50256)
MINI_V3 = replace(MINI, name="mini-v3", num_languages=100, num_mels=128)


def make_speechlike(seconds: float, seed: int) -> np.ndarray:
    """Noise and tones with pauses: float32 at 16 kHz, within -1..1."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16000)) / 16000
    tones = sum(np.sin(2 * np.pi * frequency * time) for frequency in generator.uniform(90, 3500, 6))
    knots = np.arange(0, seconds + 1, 0.25)
    envelope = np.interp(time, knots, generator.random(len(knots))) ** 2
    noise = generator.normal(0, 0.02, len(time))
    return (0.1 * envelope * tones + noise).clip(-1, 1).astype(np.float32)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory):
    """A function from a kind and a seed to the folder of that random model, built once."""
    built: dict[tuple[str, int], Path] = {}

    def folder(kind: Kind, seed: int = 0) -> Path:
        if (kind.name, seed) not in built:
            built[kind.name, seed] = write_random_model(tmp_path_factory.mktemp("model"), kind, seed=seed)
        return built[kind.name, seed]

    return folder


@pytest.fixture(autouse=True)
def _random_models_are_believed(monkeypatch):
    """No sound bears out what weights that learnt nothing say."""
    monkeypatch.setattr(unheard, "MIN_GAIN", -math.inf)
