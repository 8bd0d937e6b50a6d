"""Phrases that the sound repeats, and those that only the text does."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.engine.timing.repetition import is_said_again

PHRASE = list(range(10, 17))
ROUNDS = 5


def made(lengths_s, *, alike):
    """Log-mel of phrases with pauses of 0.5 s between, and when the tokens of the text begin."""
    random = np.random.default_rng(0)
    phrase = random.normal(0.5, 0.3, (80, 24))
    sounds, starts_s, now = [], [], 0.0
    for length_s in lengths_s:
        frames = round(length_s * 100)
        voice = phrase if alike else random.normal(0.5, 0.3, (80, 24))
        places = np.linspace(0, 23, frames)
        spoken = np.stack([np.interp(places, np.arange(24), band) for band in voice])
        sounds += [spoken + random.normal(0, 0.1, spoken.shape), np.full((80, 50), -1.0)]
        starts_s += [now + length_s * n / len(PHRASE) for n in range(len(PHRASE))]
        now += length_s + 0.5
    return np.concatenate(sounds, axis=1), [*starts_s, now]


@pytest.mark.parametrize(
    ("lengths_s", "alike", "expected"),
    [
        ([1.5] * ROUNDS, True, True),
        ([1.2, 1.5, 1.3, 1.7, 1.4], True, True),  # at other speeds
        ([1.5] * ROUNDS, False, False),
        ([0.1] * ROUNDS, True, False),  # nobody is so fast
        ([0.4, 0.4, 0.4, 0.4, 12.0], True, False),  # the decoder stood still
    ],
)
def test_rounds_that_sound_alike_were_said(lengths_s, alike, expected):
    mel, starts_s = made(lengths_s, alike=alike)
    if max(lengths_s) < 0.2:  # pauses are no part of what is said
        starts_s = [start / 20 for start in starts_s]
    assert is_said_again(PHRASE * ROUNDS, starts_s, mel) is expected


def test_text_without_a_loop_repeats_nothing():
    mel, starts_s = made([1.5] * 2, alike=True)
    assert not is_said_again(PHRASE * 2, starts_s, mel)
