"""The layer that scores and drops, and what follows it.

All that follows the attention in the scoring layer works on each position alone, so the kept rows are chosen
first and the layer is finished for them only; this equals dropping after the whole layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.engine.model.encoder import Encoder, EncoderLayer
from pipeline.engine.sparsify.level import Level
from pipeline.engine.sparsify.selectors import SELECTORS, Evidence


def rows_at(x: Tensor, places: Tensor) -> Tensor:
    """Rows of x [batch, time, dim] at places [batch, k]: [batch, k, dim]."""
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[-1]))


def finish_kept(layer: EncoderLayer, x: Tensor, qkv: tuple[Tensor, ...], kept: Tensor) -> Tensor:
    """The scoring layer's output for the kept positions only: [batch, time, dim] -> [batch, k, dim]."""
    q, k, v = qkv
    queries = q.gather(2, kept[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[-1]))
    return layer.finish(rows_at(x, kept), queries, k, v)


def encode_sparse(
    encoder: Encoder, mel: Tensor, *, level: Level, seeds: Sequence[int], positions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Hidden states of the kept positions, and which they are: [batch, k, dim], ascending int64 [batch, k].

    mel: [batch, num_mels, frames]. seeds: a number per window, for rules that draw. positions: those that go
    into the first layer, ascending int64 [batch, time]; None for all. Of these the layers up to the level's
    see every one, the others k.
    """
    x = encoder.stem(mel)
    if positions is None:
        positions = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    else:
        x = rows_at(x, positions)
    k = level.size_of(x.shape[1], len(encoder.positions))
    if k == x.shape[1]:
        return encoder.norm(encoder.run(x, 0, len(encoder.layers))), positions
    x = encoder.run(x, 0, level.layer - 1)
    scoring = encoder.layers[level.layer - 1]
    assert isinstance(scoring, EncoderLayer)
    qkv = scoring.project(x)
    evidence = Evidence(q=qkv[0], k=qkv[1], mel=mel, seeds=seeds, positions=positions)
    chosen = SELECTORS[level.selector](evidence, k)
    x = encoder.run(finish_kept(scoring, x, qkv, chosen), level.layer, len(encoder.layers))
    return encoder.norm(x), positions.gather(1, chosen)
