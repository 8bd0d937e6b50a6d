"""The layer that scores and drops, and what follows it.

All that follows the attention in the scoring layer works on each position alone, so the kept rows are chosen
first and the layer is finished for them only; this equals dropping after the whole layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.engine.model.encoder import Encoder, EncoderLayer
from pipeline.engine.sparsify.selectors import Evidence

NEIGHBOURS = 2  # dropped positions on either side that a kept one is averaged with


def average_neighbours(x: Tensor, kept: Tensor) -> Tensor:
    """Kept positions, each the mean of itself and of the dropped ones near it: [batch, k, dim].

    x: [batch, time, dim]. kept: ascending int64 [batch, k]. A dropped position goes to the nearest kept one,
    of two to the later, if that is at most NEIGHBOURS away.
    """
    time = x.shape[1]
    starts = F.pad((kept[:, 1:] + kept[:, :-1] + 1) // 2, (1, 0))  # of the stretch that is each one's own
    stops = F.pad(starts[:, 1:], (0, 1), value=time)
    total, count = x.new_zeros(*kept.shape, x.shape[-1]), torch.zeros_like(kept)
    for distance in range(-NEIGHBOURS, NEIGHBOURS + 1):
        place = kept + distance
        is_own = (place >= starts) & (place < stops)
        total += rows_at(x, place.clamp(0, time - 1)) * is_own[:, :, None]
        count += is_own
    return total / count[:, :, None]


def rows_at(x: Tensor, places: Tensor) -> Tensor:
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[-1]))


def finish_kept(
    layer: EncoderLayer, x: Tensor, qkv: tuple[Tensor, ...], kept: Tensor, *, averages: bool = False
) -> Tensor:
    """The scoring layer's output for the kept positions only: [batch, time, dim] -> [batch, k, dim].

    averages: what enters the layer is averaged with its dropped neighbours first; what it attends to, and
    with which query, stays as it is.
    """
    q, k, v = qkv
    rows = average_neighbours(x, kept) if averages else rows_at(x, kept)
    queries = q.gather(2, kept[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[-1]))
    return layer.finish(rows, queries, k, v)


# Finishes the scoring layer: some windows (by row) and their kept positions [rows, k] -> [rows, k, dim].
Finish = Callable[[Tensor, Tensor], Tensor]


def score(
    encoder: Encoder, mel: Tensor, *, layer: int, seeds: Sequence[int], averages: bool = False
) -> tuple[Evidence, Finish]:
    """Runs the layers up to the attention of the scoring one (1-based).

    Returns what a selector may look at, and a function that finishes the scoring layer for kept positions, as
    `finish_kept` does.
    """
    x = encoder.run(encoder.stem(mel), 0, layer - 1)
    scoring = encoder.layers[layer - 1]
    assert isinstance(scoring, EncoderLayer)
    qkv = scoring.project(x)
    evidence = Evidence(q=qkv[0], k=qkv[1], mel=mel, seeds=seeds)

    def finish(rows: Tensor, kept: Tensor) -> Tensor:
        own, parts = (x, qkv) if len(rows) == len(x) else (x[rows], tuple(part[rows] for part in qkv))
        return finish_kept(scoring, own, parts, kept, averages=averages)

    return evidence, finish


def encode_late(encoder: Encoder, x: Tensor, layer: int) -> Tensor:
    """What follows the scoring layer, for the kept positions: [batch, k, dim] -> the same shape, normed."""
    return encoder.norm(encoder.run(x, layer, len(encoder.layers)))
