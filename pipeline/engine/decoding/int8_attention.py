"""Attention to keys and values in 8 bits, as a Triton kernel for CUDA: they are widened on the chip.

One program owns a head of a window, and goes over the positions once with a running softmax. The scale of a
key is applied to its score and that of a value to its weight, so nothing but int8 and the scales is read, and
nothing but the result is written. A step has one query, for which every place in a block has its own running
softmax, so that nothing is shared before the end; a prompt or a beam has up to 16, on tensor cores.

Importing this needs the `triton` package. With TRITON_INTERPRET=1 it runs on a CPU too, slowly: the tests do
so.
"""
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from triton import language as tl

BLOCK = 64  # positions that are met at a time
STEP_BLOCK, STEP_WARPS = 64, 4  # the same in a step
QUERIES = 16  # the fewest rows that a product on tensor cores has
LOWEST = tl.constexpr(-1e30)  # for positions past the end: finite, or the first block could give inf - inf


def attend_int8(
    q: Tensor, keys: Tensor, key_scales: Tensor, values: Tensor, value_scales: Tensor, slots: Tensor
) -> Tensor:
    """softmax(q . (keys * key_scales)) . (values * value_scales), [rows, heads, tokens, head_dim] as q.

    q: scaled, head_dim a power of two from 16 on. keys, values: int8 [slots, heads, positions, head_dim].
    scales: float32 [slots, heads, positions]. slots: of each row of q, int64 [rows]. Products are of q's
    type, sums in float32.
    """
    rows, heads, tokens, head_dim = q.shape
    q = q.contiguous()
    out = torch.empty_like(q)
    sizes: dict[str, Any]
    if tokens == 1:
        sizes = {"head_dim": head_dim, "block": STEP_BLOCK, "num_warps": STEP_WARPS}
        _attend_one[rows * heads,](
            q, keys, key_scales, values, value_scales, slots, out, keys.shape[2], heads, **sizes
        )
        return out
    grid = (rows * heads, triton.cdiv(tokens, QUERIES))
    precision = "ieee" if q.dtype == torch.float32 else "tf32"  # tf32 says nothing to half precision
    sizes = {"head_dim": head_dim, "num_rows": QUERIES, "block": BLOCK, "precision": precision}
    _attend[grid](
        q, keys, key_scales, values, value_scales, slots, out, tokens, keys.shape[2], heads, **sizes
    )
    return out


def check(device: torch.device) -> bool:
    """Whether it is right on a device, for a step and for a prompt."""
    generator = torch.Generator().manual_seed(0)
    shape, slots = (2, 2, 2 * BLOCK + 16, 64), torch.arange(2, device=device)
    keys, values = (
        torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8).to(device) for _ in range(2)
    )
    scales = torch.rand(shape[:3], generator=generator).to(device) / 127
    wide_keys, wide_values = (one.double() * scales[..., None].double() for one in (keys, values))
    for tokens in (1, 3):
        q = torch.randn(2, 2, tokens, 64, generator=generator).to(device) / 8
        found = attend_int8(q, keys, scales, values, scales, slots)
        exact = (q.double() @ wide_keys.transpose(2, 3)).softmax(-1) @ wide_values
        if not torch.allclose(found.double(), exact, rtol=1e-3, atol=1e-4):
            return False
    return True


@triton.jit
def _attend(  # noqa: PLR0913, PLR0917 - pointers
    q, keys, key_scales, values, value_scales, slots, out, tokens, positions, heads,
    head_dim: tl.constexpr, num_rows: tl.constexpr, block: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """One head of one window, for one block of its queries."""
    pair = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + pair // heads)
    first_place = (slot * heads + pair % heads) * positions
    queries = tl.program_id(1) * num_rows + tl.arange(0, num_rows)
    dims = tl.arange(0, head_dim)
    cells = (pair * tokens + queries[:, None]) * head_dim + dims[None]
    is_query = queries[:, None] < tokens
    query = tl.load(q + cells, mask=is_query, other=0.0)
    largest = tl.full((num_rows,), LOWEST, tl.float32)
    total = tl.zeros((num_rows,), tl.float32)
    found = tl.zeros((num_rows, head_dim), tl.float32)
    for first in range(0, positions, block):
        places = first + tl.arange(0, block)
        is_there = places < positions
        at = first_place + places
        bytes_at = at[:, None] * head_dim + dims[None]
        key = tl.load(keys + bytes_at, mask=is_there[:, None], other=0).to(query.dtype)
        scores = tl.dot(query, tl.trans(key), input_precision=precision)
        scores *= tl.load(key_scales + at, mask=is_there, other=0.0)[None]
        scores = tl.where(is_there[None], scores, LOWEST)
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        shrink = tl.exp(largest - new_largest)
        weights = tl.exp(scores - new_largest[:, None])
        total = total * shrink + tl.sum(weights, 1)
        weights *= tl.load(value_scales + at, mask=is_there, other=0.0)[None]
        value = tl.load(values + bytes_at, mask=is_there[:, None], other=0).to(query.dtype)
        found = found * shrink[:, None] + tl.dot(weights.to(query.dtype), value, input_precision=precision)
        largest = new_largest
    tl.store(out + cells, (found / total[:, None]).to(query.dtype), mask=is_query)


@triton.jit
def _attend_one(  # noqa: PLR0913, PLR0917 - pointers
    q, keys, key_scales, values, value_scales, slots, out, positions, heads,
    head_dim: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One head of one window, for its one query; products are in float32."""
    pair = tl.program_id(0).to(tl.int64)
    first_place = (tl.load(slots + pair // heads) * heads + pair % heads) * positions
    dims, lanes = tl.arange(0, head_dim), tl.arange(0, block)
    query = tl.load(q + pair * head_dim + dims).to(tl.float32)
    largest = tl.full((block,), LOWEST, tl.float32)
    total = tl.zeros((block,), tl.float32)
    found = tl.zeros((block, head_dim), tl.float32)
    for first in range(0, positions, block):
        is_there = first + lanes < positions
        at = first_place + first + lanes
        bytes_at = at[:, None] * head_dim + dims[None]
        key = tl.load(keys + bytes_at, mask=is_there[:, None], other=0).to(tl.float32)
        value = tl.load(values + bytes_at, mask=is_there[:, None], other=0).to(tl.float32)
        scores = tl.sum(key * query[None], 1) * tl.load(key_scales + at, mask=is_there, other=0.0)
        scores = tl.where(is_there, scores, LOWEST)
        new_largest = tl.maximum(largest, scores)
        shrink = tl.exp(largest - new_largest)
        weights = tl.where(is_there, tl.exp(scores - new_largest), 0.0)
        total = total * shrink + weights
        weights *= tl.load(value_scales + at, mask=is_there, other=0.0)
        found = found * shrink[:, None] + value * weights[:, None]
        largest = new_largest
    weights = tl.exp(largest - tl.max(largest, 0))
    result = tl.sum(found * weights[:, None], 0) / tl.sum(total * weights, 0)
    tl.store(out + pair * head_dim + dims, result.to(out.dtype.element_ty))
