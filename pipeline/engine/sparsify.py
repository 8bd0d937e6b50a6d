"""Early Attentive Sparsification (arXiv 2506.15912): which positions are kept, and the layer that drops.

The importance of position j is the attention it receives in the scoring layer: the sum over queries of the
post-softmax weight on key j, averaged over heads. The k most important positions are kept in time order.
All that follows the attention in the scoring layer works on each position alone, so the kept rows are chosen
first and the layer is finished for them only; this equals dropping after the whole layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.engine.encoder import Encoder, EncoderLayer

QUERY_TILE = 250  # 128-250 measured best on a CPU: a tile of one head stays in the cache
QUOTA_SEGMENTS = 10  # of 3 s in a full window
NEIGHBOURS = 2  # dropped positions on either side that a kept one is averaged with


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a selector may look at, for one batch of windows.

    q, k: the scoring layer's scaled queries and keys, [batch, heads, time, head_dim].
    mel: the windows' log-mel features, [batch, num_mels, 2 * time].
    seeds: one number per window, for rules that draw.
    """

    q: Tensor
    k: Tensor
    mel: Tensor
    seeds: Sequence[int]

    @property
    def num_positions(self) -> int:
        return self.k.shape[2]


def num_kept(sparsity: float, num_positions: int) -> int:
    """k = round((1 - s) T), at least 1."""
    return max(1, round((1.0 - sparsity) * num_positions))


def received_attention(q: Tensor, k: Tensor, *, over_queries: Literal["sum", "max"] = "sum") -> Tensor:
    """Attention that each key receives, per head: float32 [batch, heads, time].

    q, k: [batch, heads, time, head_dim], q scaled. Softmax and sums are in float32. One tile of queries at a
    time goes through a reused buffer: of one head on a CPU, of one window's heads on a GPU. On a GPU where
    the Triton kernel runs, sums are its.
    """
    if q.is_cuda and over_queries == "sum" and _has_kernel(q.device):
        from pipeline.engine.column_sums import column_sums

        return column_sums(q, k)
    batch, heads, time, head_dim = k.shape
    queries = q.reshape(batch * heads, time, head_dim)
    keys = k.reshape(batch * heads, time, head_dim)
    group = heads if q.is_cuda else 1
    tile = torch.empty(group, QUERY_TILE, time, dtype=torch.float32, device=q.device)
    received = torch.zeros(batch * heads, time, dtype=torch.float32, device=q.device)
    for start in range(0, batch * heads, group):
        rows = slice(start, start + group)
        for first in range(0, time, QUERY_TILE):
            block = queries[rows, first : first + QUERY_TILE]
            _add_received(received[rows], block, keys[rows], tile[:, : block.shape[1]], over_queries)
    return received.view(batch, heads, time)


@cache
def _has_kernel(device: torch.device) -> bool:
    if find_spec("triton") is None:
        return False
    from pipeline.engine.column_sums import is_usable

    return is_usable(device)


def _add_received(received: Tensor, q: Tensor, k: Tensor, tile: Tensor, over_queries: str) -> None:
    """Adds to received [group, time] what the queries [group, rows, head_dim] give; tile is scratch."""
    torch.bmm(q.float(), k.float().transpose(1, 2), out=tile)
    torch.softmax(tile, -1, out=tile)
    if over_queries == "sum":
        received.add_(tile.sum(1))
    else:
        torch.maximum(received, tile.amax(1), out=received)


def top_positions(importance: Tensor, k: int) -> Tensor:
    """Indices of the k largest per row, ties to the earlier, ascending: [batch, time] -> int64 [batch, k]."""
    order = importance.argsort(dim=-1, descending=True, stable=True)
    return order[:, :k].sort(dim=-1).values


def pick_quota(importance: Tensor, k: int) -> Tensor:
    """The most important ones inside each of ten equal stretches of time, which get equal shares of k."""
    total = importance.shape[1]
    edges = [total * part // QUOTA_SEGMENTS for part in range(QUOTA_SEGMENTS + 1)]
    kept = []
    for start, stop in pairwise(edges):
        share = stop * k // total - start * k // total
        kept.append(start + top_positions(importance[:, start:stop], share))
    return torch.cat(kept, dim=1)


def pick_evenly(importance: Tensor, k: int) -> Tensor:
    """Evenly spaced positions, whatever their importance."""
    even = torch.arange(k, device=importance.device) * importance.shape[1] // k
    return even.expand(len(importance), -1)


def mean_received(evidence: Evidence) -> Tensor:
    """The paper's importance: mean over heads of the summed attention received."""
    return received_attention(evidence.q, evidence.k).mean(1)


def max_received(evidence: Evidence) -> Tensor:
    """The strongest head decides."""
    return received_attention(evidence.q, evidence.k).amax(1)


def min_received(evidence: Evidence) -> Tensor:
    """Every head must attend."""
    return received_attention(evidence.q, evidence.k).amin(1)


def median_received(evidence: Evidence) -> Tensor:
    """The median head decides (of an even number, the mean of the middle two)."""
    return received_attention(evidence.q, evidence.k).quantile(0.5, dim=1)


def max_query_received(evidence: Evidence) -> Tensor:
    """The largest weight any query gives, averaged over heads."""
    return received_attention(evidence.q, evidence.k, over_queries="max").mean(1)


def drawn(evidence: Evidence) -> Tensor:
    """A random order, from each window's seed."""
    orders = []
    for seed in evidence.seeds:
        generator = torch.Generator().manual_seed(seed)
        orders.append(torch.randperm(evidence.num_positions, generator=generator).argsort())
    return -torch.stack(orders).to(evidence.k.device)


def loudness(evidence: Evidence) -> Tensor:
    """The mean of the log-mel features of a position's two frames."""
    return evidence.mel.mean(1).view(len(evidence.mel), evidence.num_positions, 2).mean(-1)


def earliness(evidence: Evidence) -> Tensor:
    """Earlier is more important: windows are padded at their end, so padding goes first."""
    order = -torch.arange(evidence.num_positions, device=evidence.k.device)
    return order.expand(len(evidence.k), -1)


@dataclass(frozen=True, kw_only=True)
class Selector:
    """A rule that keeps k positions: how important each one is, and how k of them are picked by that.

    importance: evidence to [batch, time]. pick: importance [batch, time] and k to ascending indices int64
    [batch, k]. reads_attention: the importance is made of attention received. averages: what is kept is
    averaged with the dropped positions beside it (`average_neighbours`), which the paper does not do.
    """

    importance: Callable[[Evidence], Tensor]
    pick: Callable[[Tensor, int], Tensor] = top_positions
    reads_attention: bool = False
    averages: bool = False

    def __call__(self, evidence: Evidence, k: int) -> Tensor:
        """The kept positions of every window, ascending: int64 [batch, k]."""
        return self.pick(self.importance(evidence), k)


SELECTORS: dict[str, Selector] = {
    "attention": Selector(importance=mean_received, reads_attention=True),
    "attention-quota": Selector(importance=mean_received, pick=pick_quota, reads_attention=True),
    "attention-max": Selector(importance=max_received, reads_attention=True),
    "attention-min": Selector(importance=min_received, reads_attention=True),
    "attention-median": Selector(importance=median_received, reads_attention=True),
    "attention-max-query": Selector(importance=max_query_received, reads_attention=True),
    "stride": Selector(importance=earliness, pick=pick_evenly),
    "random": Selector(importance=drawn),
    "energy": Selector(importance=loudness),
    "trim": Selector(importance=earliness),
    "attention-averaged": Selector(importance=mean_received, reads_attention=True, averages=True),
    "stride-averaged": Selector(importance=earliness, pick=pick_evenly, averages=True),
}


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
        total += _rows(x, place.clamp(0, time - 1)) * is_own[:, :, None]
        count += is_own
    return total / count[:, :, None]


def _rows(x: Tensor, places: Tensor) -> Tensor:
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[-1]))


def finish_kept(
    layer: EncoderLayer, x: Tensor, qkv: tuple[Tensor, ...], kept: Tensor, *, averages: bool = False
) -> Tensor:
    """The scoring layer's output for the kept positions only: [batch, time, dim] -> [batch, k, dim].

    averages: what enters the layer is averaged with its dropped neighbours first; what it attends to, and
    with which query, stays as it is.
    """
    q, k, v = qkv
    rows = average_neighbours(x, kept) if averages else _rows(x, kept)
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


def encode_sparse(
    encoder: Encoder, mel: Tensor, *, layer: int, k: int, selector: Selector, seeds: Sequence[int]
) -> Tensor:
    """Hidden states of the k kept positions: [batch, num_mels, frames] -> [batch, k, dim].

    layer: the scoring layer, 1-based; layers 1 to `layer` see every position, the others k.
    """
    evidence, finish = score(encoder, mel, layer=layer, seeds=seeds, averages=selector.averages)
    rows = torch.arange(len(mel), device=mel.device)
    return encode_late(encoder, finish(rows, selector(evidence, k)), layer)
