"""The attention that each key receives, without the whole matrix."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pipeline.engine.model.kernels import has_kernel

KERNEL = "pipeline.engine.sparsify.column_sums"
QUERY_TILE = 250  # 128-250 measured best on a CPU: a tile of one head stays in the cache


def received_attention(q: Tensor, k: Tensor, *, over_queries: Literal["sum", "max"] = "sum") -> Tensor:
    """Attention that each key receives, per head: float32 [batch, heads, time].

    q, k: [batch, heads, time, head_dim], q scaled. Softmax and sums are in float32. One tile of queries at a
    time goes through a reused buffer: of one head on a CPU, of one window's heads on a GPU. On a GPU where
    the Triton kernel runs, sums are its.
    """
    if q.is_cuda and over_queries == "sum" and has_kernel(KERNEL, q.device):
        from pipeline.engine.sparsify.column_sums import column_sums

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


def _add_received(received: Tensor, q: Tensor, k: Tensor, tile: Tensor, over_queries: str) -> None:
    """Adds to received [group, time] what the queries [group, rows, head_dim] give; tile is scratch."""
    torch.bmm(q.float(), k.float().transpose(1, 2), out=tile)
    torch.softmax(tile, -1, out=tile)
    if over_queries == "sum":
        received.add_(tile.sum(1))
    else:
        torch.maximum(received, tile.amax(1), out=received)
