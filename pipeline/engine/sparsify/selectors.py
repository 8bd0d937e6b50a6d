"""Early Attentive Sparsification (arXiv 2506.15912): which positions are kept, and the layer that drops.

The importance of position j is the attention it receives in the scoring layer: the sum over queries of the
post-softmax weight on key j, averaged over heads. The k most important positions are kept in time order.
All that follows the attention in the scoring layer works on each position alone, so the kept rows are chosen
first and the layer is finished for them only; this equals dropping after the whole layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engine.options import SELECTORS as NAMES
from pipeline.engine.sparsify.attention import received_attention


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a selector may look at, for one batch of windows.

    q, k: the scoring layer's scaled queries and keys, [batch, heads, time, head_dim].
    mel: the windows' log-mel features, [batch, num_mels, frames], two frames a position.
    positions: which positions these are, ascending int64 [batch, time].
    seeds: one number per window, for rules that draw.
    """

    q: Tensor
    k: Tensor
    mel: Tensor
    positions: Tensor
    seeds: Sequence[int]

    @property
    def num_positions(self) -> int:
        return self.k.shape[2]


def top_positions(importance: Tensor, k: int) -> Tensor:
    """Indices of the k largest per row, ties to the earlier, ascending: [batch, time] -> int64 [batch, k]."""
    order = importance.argsort(dim=-1, descending=True, stable=True)
    return order[:, :k].sort(dim=-1).values


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
    of_all = evidence.mel.mean(1).view(len(evidence.mel), -1, 2).mean(-1)
    return of_all.gather(1, evidence.positions)


def earliness(evidence: Evidence) -> Tensor:
    """Earlier is more important: windows are padded at their end, so padding goes first."""
    order = -torch.arange(evidence.num_positions, device=evidence.k.device)
    return order.expand(len(evidence.k), -1)


@dataclass(frozen=True, kw_only=True)
class Selector:
    """A rule that keeps k positions: how important each one is, and how k of them are picked by that.

    importance: evidence to [batch, time]. pick: importance [batch, time] and k to ascending indices int64
    [batch, k].
    """

    importance: Callable[[Evidence], Tensor]
    pick: Callable[[Tensor, int], Tensor] = top_positions

    def __call__(self, evidence: Evidence, k: int) -> Tensor:
        """The kept positions of every window, ascending: int64 [batch, k]."""
        return self.pick(self.importance(evidence), k)


SELECTORS: dict[str, Selector] = {
    "attention": Selector(importance=mean_received),
    "attention-max": Selector(importance=max_received),
    "attention-min": Selector(importance=min_received),
    "attention-median": Selector(importance=median_received),
    "attention-max-query": Selector(importance=max_query_received),
    "stride": Selector(importance=earliness, pick=pick_evenly),
    "random": Selector(importance=drawn),
    "energy": Selector(importance=loudness),
    "trim": Selector(importance=earliness),
}
assert tuple(SELECTORS) == NAMES
