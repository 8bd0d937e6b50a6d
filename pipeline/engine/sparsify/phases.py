"""Phase A of a window: the layers up to the scoring one, and how much and what the window keeps.

All of it is read from the window alone, so its company changes nothing. Phase B (`scoring_layer.encode_late`)
runs windows of one size together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engine.model.encoder import Encoder
from pipeline.engine.sparsify.level import Level
from pipeline.engine.sparsify.scoring_layer import score
from pipeline.engine.sparsify.selectors import SELECTORS, Evidence, Selector, num_kept, pick_evenly
from pipeline.engine.sparsify.sound import sounding_positions

# Attention received whose deviation is under this share of its mean says nothing. Trained models are far from
# it (0.4 to 1.4 at layers 1-3 of the bundled one).
UNIFORM_DEVIATION = 0.1
# One silent position in six is kept, from what the speech would have had, up to a quarter of all that is
# kept. Measured on an early bundled model, 6 windows a set: at a share of 0.7 and the same k, loss went from
# 37 and 41 % to 23 and 31 % (spread and half; stride from 32 and 49 % to 14 and 20 %).
SILENCE_STEP = 6
MAX_TRACE = 4


@dataclass(frozen=True, kw_only=True)
class Early:
    """What phase A leaves of one window.

    hidden: outputs of the scoring layer, [kept, dim]. kept: their positions, ascending int64 [kept].
    """

    hidden: Tensor
    kept: Tensor


def encode_early(
    encoder: Encoder, mel: Tensor, *, level: Level, num_samples: Sequence[int], seeds: Sequence[int]
) -> list[Early]:
    """Phase A of some windows under one level: [batch, num_mels, frames] -> one `Early` each."""
    averages = SELECTORS[level.selector].averages
    evidence, finish = score(encoder, mel, layer=level.layer, seeds=seeds, averages=averages)
    chosen = choose_kept(evidence, level, num_samples)
    done: dict[int, Early] = {}
    for size in {len(kept) for kept in chosen}:
        rows = [row for row, kept in enumerate(chosen) if len(kept) == size]
        together = torch.stack([chosen[row] for row in rows])
        hidden = finish(torch.tensor(rows, device=mel.device), together)
        done |= {row: Early(hidden=hidden[n], kept=chosen[row]) for n, row in enumerate(rows)}
    return [done[row] for row in range(len(chosen))]


def choose_kept(evidence: Evidence, level: Level, num_samples: Sequence[int]) -> list[Tensor]:
    """The positions that each window keeps, ascending int64.

    A level with a share spends positions on sound, and a trace of them on silence. A window is left dense
    where it needs more than the largest size below all positions, and where its attention is nearly uniform.
    """
    selector = SELECTORS[level.selector]
    if level.sparsity is not None:
        return list(selector(evidence, num_kept(level.sparsity, evidence.num_positions)))
    importance = selector.importance(evidence)
    return [
        _choose_one(row, sounding_positions(mel, samples), level, selector)
        for row, mel, samples in zip(importance, evidence.mel, num_samples, strict=True)
    ]


def keep_sounding(importance: Tensor, sounding: Tensor, k: int, selector: Selector) -> Tensor:
    """k positions, the sounding ones first, but for a trace of the silence: int64 [k], ascending.

    importance, sounding: [time]. The selector picks among the sounding positions; silent ones are kept at
    even distances. Which of them says nothing, but a decoder that is left without any loses its place: it
    skips what follows a pause and says the last words again (docs/sparsity.md).
    """
    loud, silent = sounding.nonzero().squeeze(1), (~sounding).nonzero().squeeze(1)
    trace = min(len(silent) // SILENCE_STEP, k // MAX_TRACE)
    num_silent = max(k - len(loud), trace)
    heard = loud[selector.pick(importance[None, loud], k - num_silent)[0]]
    rest = silent[pick_evenly(importance[None, silent], num_silent)[0]]
    return torch.cat([heard, rest]).sort().values


def _choose_one(importance: Tensor, sounding: Tensor, level: Level, selector: Selector) -> Tensor:
    total = len(importance)
    k = min(level.size_for(int(sounding.sum())), total)
    if k == total or (selector.reads_attention and _is_uniform(importance)):
        return torch.arange(total, device=importance.device)
    return keep_sounding(importance, sounding, k, selector)


def _is_uniform(importance: Tensor) -> bool:
    return bool(importance.std() < UNIFORM_DEVIATION * importance.mean())
