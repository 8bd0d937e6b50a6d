"""Ways of dropping encoder positions while the model is trained, so that it can bear what a job drops."""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.demo.network import NEAR_FRAMES, Thinning
from pipeline.engine.phases import keep_sounding
from pipeline.engine.sound import REACH
from pipeline.engine.sparsify import SELECTORS, pick_evenly

_KEPT_SHARES = (0.3, 0.8)  # of all positions
_SPEECH_SHARES = (0.8, 1.4)  # kept positions per position of speech
_SILENCE_SHARE = 0.75  # of the batches that have silence to drop, drop silence
_AFTER = (1, 2, 3)


def draw_thinning(rng: random.Random, speech: Tensor) -> Thinning:
    """A random way of dropping positions.

    Windows with silence to spare mostly drop that, as the levels of adaptive jobs do. The others, and the
    rest of them, keep 30 to 80 %: by attention, evenly or by lot. Where it can be, a number that is kept is
    made of whole chunks of near attention.

    speech: bool [B, T], where a phoneme is heard.
    """
    after_layer = rng.choice(_AFTER)
    kept = _drop_silence(speech, rng.uniform(*_SPEECH_SHARES))
    if kept is not None and rng.random() < _SILENCE_SHARE:
        return _keeping(kept, after_layer, speech.shape[1])
    return _drop_anything(rng, after_layer, *speech.shape)


def _drop_silence(speech: Tensor, share: float) -> Tensor | None:
    """Positions [B, K] that keep `share` of those near speech and a trace of silence; None if that is all."""
    sounding = F.max_pool1d(speech.float(), 2 * REACH + 1, stride=1, padding=REACH) > 0
    needed = share * int(sounding.sum(1).max())
    num_kept = max(1, math.ceil(needed / NEAR_FRAMES)) * NEAR_FRAMES
    if num_kept >= speech.shape[1]:
        return None
    anything = torch.zeros(speech.shape[1])
    return torch.stack(
        [keep_sounding(anything, window, num_kept, SELECTORS["stride"]) for window in sounding]
    )


def _drop_anything(rng: random.Random, after_layer: int, batch_size: int, num_frames: int) -> Thinning:
    num_kept = round(rng.uniform(*_KEPT_SHARES) * num_frames)
    num_kept = num_kept // NEAR_FRAMES * NEAR_FRAMES or num_kept
    way = rng.choice(("attention", "evenly", "evenly", "by lot"))
    if way == "attention":
        return Thinning(after_layer, num_kept, None)
    if way == "by lot":
        orders = [rng.sample(range(num_frames), num_frames) for _ in range(batch_size)]
        return Thinning(after_layer, num_kept, torch.tensor(orders).float())
    return _keeping(pick_evenly(torch.zeros(batch_size, num_frames), num_kept), after_layer, num_frames)


def _keeping(kept: Tensor, after_layer: int, num_frames: int) -> Thinning:
    return Thinning(after_layer, kept.shape[1], torch.zeros(len(kept), num_frames).scatter(1, kept, 1.0))
