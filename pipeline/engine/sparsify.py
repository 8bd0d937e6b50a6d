"""Early Attentive Sparsification (arXiv 2506.15912): which positions are kept, and the layer that drops.

The importance of position j is the attention it receives in the scoring layer: the sum over queries of the
post-softmax weight on key j, averaged over heads. The k most important positions are kept in time order.
All that follows the attention in the scoring layer works on each position alone, so the kept rows are chosen
first and the layer is finished for them only; this equals dropping after the whole layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from pipeline.engine.encoder import Encoder, EncoderLayer

QUERY_TILE = 250  # 128-250 measured best on a CPU: a tile of one head stays in the cache
QUOTA_SEGMENTS = 10  # of 3 s in a full window


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


Selector = Callable[[Evidence, int], Tensor]


def num_kept(sparsity: float, num_positions: int) -> int:
    """k = round((1 - s) T), at least 1."""
    return max(1, round((1.0 - sparsity) * num_positions))


def received_attention(q: Tensor, k: Tensor, *, over_queries: Literal["sum", "max"] = "sum") -> Tensor:
    """Attention that each key receives, per head: float32 [batch, heads, time].

    q, k: [batch, heads, time, head_dim], q scaled. Softmax and sums are in float32. One tile of queries at a
    time goes through a reused buffer: of one head on a CPU, of one window's heads on a GPU.
    """
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


def select_attention(evidence: Evidence, k: int) -> Tensor:
    """The paper's rule: mean over heads of the summed attention received."""
    return top_positions(received_attention(evidence.q, evidence.k).mean(1), k)


def select_attention_max(evidence: Evidence, k: int) -> Tensor:
    """The strongest head decides."""
    return top_positions(received_attention(evidence.q, evidence.k).amax(1), k)


def select_attention_min(evidence: Evidence, k: int) -> Tensor:
    """Every head must attend."""
    return top_positions(received_attention(evidence.q, evidence.k).amin(1), k)


def select_attention_median(evidence: Evidence, k: int) -> Tensor:
    """The median head decides (of an even number, the mean of the middle two)."""
    return top_positions(received_attention(evidence.q, evidence.k).quantile(0.5, dim=1), k)


def select_attention_max_query(evidence: Evidence, k: int) -> Tensor:
    """The largest weight any query gives, averaged over heads."""
    return top_positions(received_attention(evidence.q, evidence.k, over_queries="max").mean(1), k)


def select_attention_quota(evidence: Evidence, k: int) -> Tensor:
    """The paper's rule inside each of ten equal stretches of time, which get equal shares of k."""
    importance = received_attention(evidence.q, evidence.k).mean(1)
    total = importance.shape[1]
    edges = [total * part // QUOTA_SEGMENTS for part in range(QUOTA_SEGMENTS + 1)]
    kept = []
    for start, stop in pairwise(edges):
        share = stop * k // total - start * k // total
        kept.append(start + top_positions(importance[:, start:stop], share))
    return torch.cat(kept, dim=1)


def select_stride(evidence: Evidence, k: int) -> Tensor:
    """Evenly spaced positions."""
    even = torch.arange(k, device=evidence.k.device) * evidence.num_positions // k
    return even.expand(len(evidence.k), -1)


def select_random(evidence: Evidence, k: int) -> Tensor:
    """Positions drawn without replacement, from each window's seed."""
    drawn = []
    for seed in evidence.seeds:
        generator = torch.Generator().manual_seed(seed)
        drawn.append(torch.randperm(evidence.num_positions, generator=generator)[:k].sort().values)
    return torch.stack(drawn).to(evidence.k.device)


def select_energy(evidence: Evidence, k: int) -> Tensor:
    """Positions whose two frames are loudest: the mean of the log-mel features."""
    loudness = evidence.mel.mean(1).view(len(evidence.mel), evidence.num_positions, 2).mean(-1)
    return top_positions(loudness, k)


def select_trim(evidence: Evidence, k: int) -> Tensor:
    """The earliest positions: windows are padded at their end, so padding goes first."""
    return torch.arange(k, device=evidence.k.device).expand(len(evidence.k), -1)


SELECTORS: dict[str, Selector] = {
    "attention": select_attention,
    "attention-quota": select_attention_quota,
    "attention-max": select_attention_max,
    "attention-min": select_attention_min,
    "attention-median": select_attention_median,
    "attention-max-query": select_attention_max_query,
    "stride": select_stride,
    "random": select_random,
    "energy": select_energy,
    "trim": select_trim,
}


def finish_kept(layer: EncoderLayer, x: Tensor, qkv: tuple[Tensor, ...], kept: Tensor) -> Tensor:
    """The scoring layer's output for the kept positions only: [batch, time, dim] -> [batch, k, dim]."""
    q, k, v = qkv
    rows = x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[-1]))
    queries = q.gather(2, kept[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[-1]))
    return layer.finish(rows, queries, k, v)


def encode_sparse(
    encoder: Encoder, mel: Tensor, *, layer: int, k: int, selector: Selector, seeds: Sequence[int]
) -> Tensor:
    """Hidden states of the k kept positions: [batch, num_mels, frames] -> [batch, k, dim].

    layer: the scoring layer, 1-based; layers 1 to `layer` see every position, the others k.
    """
    x = encoder.run(encoder.stem(mel), 0, layer - 1)
    scoring = encoder.layers[layer - 1]
    assert isinstance(scoring, EncoderLayer)
    qkv = scoring.project(x)
    kept = selector(Evidence(q=qkv[0], k=qkv[1], mel=mel, seeds=seeds), k)
    x = finish_kept(scoring, x, qkv, kept)
    return encoder.norm(encoder.run(x, layer, len(encoder.layers)))
