"""Scenes: what a window of audio holds, sentences laid out in time, and the truth about them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tests.synthetic.speech import SAMPLE_RATE, Utterance, Voice, synthesize
from tests.synthetic.text import Split, sample_sentence

Layout = Literal["packed", "spread", "half", "empty"]

TRAIN_VARIANTS = (
    *("", "m1", "m3", "m4", "m5", "m6", "m8", "Gene", "f1", "f2", "f4", "steph", "steph2", "steph3"),
    *("Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Henrique", "Hugo", "Jacky", "Lee"),
    *("Marco", "Mario", "Michael", "Mike", "adam", "anika", "antonio", "aunty", "belinda", "benjamin"),
    *("boris", "caleb", "david", "ed", "edward", "grandma", "grandpa", "iven", "iven2", "john"),
    *("kaukovalta", "linda", "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul", "pedro"),
    *("quincy", "rob", "robert", "sandro", "shelby", "travis", "victor", "zac"),
)
HELD_OUT_VARIANTS = {"dev": ("m7", "f3"), "final": ("m2", "Alex", "f5")}
_GRID = 320  # samples in 20 ms: a sentence starts on a frame of the encoder
_GAPS_S = {"packed": (0.1, 0.6), "half": (0.1, 0.6), "spread": (1.0, 4.0)}


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A sentence and the second at which it starts in its window."""

    start_s: float
    utterance: Utterance

    @property
    def end_s(self) -> float:
        return self.start_s + self.utterance.duration_s


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One window: samples (float32, mono, 16 kHz, [-1, 1]) and the sentences in it, in time order."""

    samples: np.ndarray
    language: str
    sentences: tuple[Placed, ...]

    @property
    def text(self) -> str:
        return " ".join(placed.utterance.text for placed in self.sentences)


def sample_voice(rng: random.Random, language: str, split: Split) -> Voice:
    """A voice of the split: training voices and held-out voices have no variant in common."""
    variants = TRAIN_VARIANTS if split == "train" else HELD_OUT_VARIANTS[split]
    return Voice(
        language=language,
        variant=rng.choice(variants),
        rate=rng.randint(150, 190),
        pitch=rng.randint(35, 65),
        pitch_range=rng.randint(40, 60),
    )


@dataclass(frozen=True, kw_only=True)
class Script:
    """What to compose: language, layout, length, and whose sentences.

    `speech_share` is the part of the window that a half layout fills, `unseen_names` the share of sentences
    whose names were never trained on.
    """

    language: str
    layout: Layout
    duration_s: float
    split: Split
    speech_share: float = 0.5
    unseen_names: float = 0.0


def compose(rng: random.Random, script: Script) -> Scene:
    """One voice saying sentences until the next one does not fit; clean, at full level."""
    language, layout, split = script.language, script.layout, script.split
    samples = np.zeros(int(script.duration_s * SAMPLE_RATE), dtype=np.float32)
    sentences: list[Placed] = []
    if layout != "empty":
        voice = sample_voice(rng, language, split)
        limit = int(len(samples) * script.speech_share) if layout == "half" else len(samples)
        cursor = _gap(rng, layout, first=True)
        while True:
            unseen = rng.random() < script.unseen_names
            utterance = synthesize(sample_sentence(rng, language, split, unseen_names=unseen), voice)
            end = cursor + len(utterance.samples)
            if end > limit:
                break
            samples[cursor:end] = utterance.samples.astype(np.float32) / 32768
            sentences.append(Placed(start_s=cursor / SAMPLE_RATE, utterance=utterance))
            cursor = end + _gap(rng, layout)
            cursor += -cursor % _GRID
    return Scene(samples=samples, language=language, sentences=tuple(sentences))


def _gap(rng: random.Random, layout: Layout, *, first: bool = False) -> int:
    low, high = (0.0, 0.5) if first else _GAPS_S[layout]
    return int(rng.uniform(low, high) * SAMPLE_RATE) // _GRID * _GRID
