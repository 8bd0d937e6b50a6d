"""An engine without a model whose words depend on the samples, and on how sparse it is asked to be."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from tests.fakes import result

NUM_WORDS = 20
VOCABULARY = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "yew")


@dataclass
class LossyEngine:
    """Loses a word in some windows: in the share of them that is dropped of the positions, times `loss`.

    The dense text of a window is a function of its samples but for silence before them, so that dense begun
    earlier is the same; so is the window's luck at a level.
    """

    model_name: str = "lossy"
    device: str = "cpu"
    batch_size: int = 1
    num_calls: int = 1
    peak_memory_bytes: int = 0
    conditions_on_text: bool = False
    loss: float = 1.0

    def transcribe(self, windows, *, languages=None, are_guesses=False, seeds=None, levels=None):
        return [
            self._one(samples, language or "en", levels)
            for samples, language in zip(windows, languages, strict=True)
        ]

    def give_up(self):
        raise AssertionError("nobody stops these jobs")

    def _one(self, samples, language, level):
        key = zlib.crc32(np.trim_zeros(samples, "f").tobytes())
        words = [VOCABULARY[(key >> i) % len(VOCABULARY)] for i in range(NUM_WORDS)]
        if level is None:
            return result(" ".join(words), language=language, device_s=1.0)
        luck = zlib.crc32(f"{key} {level.sparsity}".encode()) / 2**32
        if luck < self.loss * level.sparsity:
            words[key % NUM_WORDS] = "weed"
        kept = min(1500, round(1500 * (1 - level.sparsity)))
        return result(" ".join(words), language=language, kept_positions=kept, device_s=0.5)
