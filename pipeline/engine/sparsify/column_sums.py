"""The attention that each key receives, as a Triton kernel for CUDA: the softmax's column sums.

Two passes over the products of queries and keys, neither of which leaves the chip. The first keeps the
log-sum-exp of each query; the second adds up exp(q . k - lse) for a block of keys over all queries. Nothing
larger than [batch, heads, time] is written, and every sum has one owner and one order: the result is the same
each time.

Importing this needs the `triton` package, which comes with torch's builds for CUDA. With TRITON_INTERPRET=1
it runs on a CPU too, slowly: the tests do so.
"""
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from triton import language as tl

BLOCK = 64  # queries or keys that a program owns, and that it meets at a time
LOWEST = tl.constexpr(-1e30)  # for keys past the end: finite, or the first block could give inf - inf


def column_sums(q: Tensor, k: Tensor) -> Tensor:
    """Sum over queries of the softmax's weight on each key: float32 [batch, heads, time].

    q, k: [batch, heads, time, head_dim], q scaled; head_dim a power of two from 16 on. Products are of their
    type, sums in float32.
    """
    batch, heads, time, head_dim = k.shape
    q, k = q.contiguous(), k.contiguous()
    lse = torch.empty(batch * heads, time, dtype=torch.float32, device=q.device)
    sums = torch.empty_like(lse)
    grid = (triton.cdiv(time, BLOCK), batch * heads)
    precision = "ieee" if q.dtype == torch.float32 else "tf32"  # tf32 says nothing to half precision
    sizes: dict[str, Any] = {"head_dim": head_dim, "block": BLOCK, "precision": precision}
    _row_log_sum_exp[grid](q, k, lse, time, **sizes)
    _add_columns[grid](q, k, lse, sums, time, **sizes)
    return sums.view(batch, heads, time)


def check(device: torch.device) -> bool:
    """Whether it is right on a device."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 2, 2 * BLOCK + 16, 64, generator=generator).to(device) for _ in range(2))
    exact = (q.double() / 8 @ k.double().transpose(2, 3)).softmax(-1).sum(2)
    return torch.allclose(column_sums(q / 8, k).double(), exact, rtol=1e-3)


@triton.jit
def _row_log_sum_exp(
    q, k, lse, time, head_dim: tl.constexpr, block: tl.constexpr, precision: tl.constexpr
):  # fmt: skip
    """lse[head, i] = log sum_j exp(q_i . k_j) for one block of queries i."""
    head = tl.program_id(1).to(tl.int64) * time
    queries = tl.program_id(0) * block + tl.arange(0, block)
    rows = _load_rows(q, head, queries, time, head_dim)
    largest = tl.full((block,), LOWEST, tl.float32)
    total = tl.zeros((block,), tl.float32)
    for first in range(0, time, block):
        keys = first + tl.arange(0, block)
        scores = tl.dot(rows, tl.trans(_load_rows(k, head, keys, time, head_dim)), input_precision=precision)
        scores = tl.where(keys[None] < time, scores, LOWEST)
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        total = total * tl.exp(largest - new_largest) + tl.sum(tl.exp(scores - new_largest[:, None]), 1)
        largest = new_largest
    tl.store(lse + head + queries, largest + tl.log(total), mask=queries < time)


@triton.jit
def _add_columns(
    q, k, lse, sums, time, head_dim: tl.constexpr, block: tl.constexpr, precision: tl.constexpr
):  # fmt: skip
    """sums[head, j] = sum_i exp(q_i . k_j - lse_i) for one block of keys j."""
    head = tl.program_id(1).to(tl.int64) * time
    keys = tl.program_id(0) * block + tl.arange(0, block)
    columns = tl.trans(_load_rows(k, head, keys, time, head_dim))
    total = tl.zeros((block,), tl.float32)
    for first in range(0, time, block):
        queries = first + tl.arange(0, block)
        scores = tl.dot(_load_rows(q, head, queries, time, head_dim), columns, input_precision=precision)
        shift = tl.load(lse + head + queries, mask=queries < time, other=0.0)
        weights = tl.where(queries[:, None] < time, tl.exp(scores - shift[:, None]), 0.0)
        total += tl.sum(weights, 0)
    tl.store(sums + head + keys, total, mask=keys < time)


@triton.jit
def _load_rows(source, head, places, time, head_dim: tl.constexpr):
    """[places, head_dim] of one head; zeros past the end."""
    cells = (head + places[:, None]) * head_dim + tl.arange(0, head_dim)
    return tl.load(source + cells, mask=places[:, None] < time, other=0.0)
