"""Attention of a new token to those before it, as a Triton kernel for CUDA that also keeps its key and value.

Torch's way takes five kernels in every layer, and for so few keys each costs little more than its start. Here
one program owns a head of a row: it stores the new key and value and goes over the earlier ones, as far as
this row has any. Every place in a block has its own running softmax, so nothing is shared before the end.

Importing this needs the `triton` package. With TRITON_INTERPRET=1 it runs on a CPU too, slowly: the tests do
so.
"""
# mypy: allow-untyped-defs

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton import language as tl

BLOCK = 32  # earlier tokens that are met at a time
NUM_WARPS = 2
LOWEST = tl.constexpr(-1e30)  # the score of what is not there: finite, or inf - inf would come up


def attend_past(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor, places: Tensor) -> Tensor:
    """Writes k and v to their places, and attends with q to what is there up to them.

    q, k, v: [rows, heads, 1, head_dim], q scaled, head_dim a power of two; heads side by side, rows with one
    stride. past_k, past_v: [rows, heads, tokens, head_dim]. places: int64 [rows], of the new token. Returns
    the shape of q, contiguous. Products and sums are in float32.
    """
    rows, heads, _, head_dim = q.shape
    out = torch.empty(q.shape, device=q.device, dtype=q.dtype)
    sizes = {"head_dim": head_dim, "block": BLOCK, "num_warps": NUM_WARPS}
    _attend[rows, heads](
        q, k, v, past_k, past_v, places, out, q.stride(0), k.stride(0), past_k.shape[2], heads, **sizes
    )
    return out


def check(device: torch.device) -> bool:
    """Whether it is right on a device."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 1, 64, generator=generator).to(device) / 4
    past = torch.randn(2, 2, 2, 2 * BLOCK, 64, generator=generator).to(device)
    places = torch.tensor([0, BLOCK + 5], device=device)
    found = attend_past(q, k, v, past[0], past[1], places)
    for row, place in enumerate(places.tolist()):
        keys, values = past[:, row, :, : place + 1].double()
        weights = (q[row].double() @ keys.transpose(1, 2)).softmax(-1)
        if not torch.allclose(found[row].double(), weights @ values, rtol=1e-3, atol=1e-4):
            return False
    return True


@triton.jit
def _attend(  # noqa: PLR0913, PLR0917 - pointers
    q, k, v, past_k, past_v, places, out, q_stride, kv_stride, most, heads,
    head_dim: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One head of one row."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dims, lanes = tl.arange(0, head_dim), tl.arange(0, block)
    query = tl.load(q + row * q_stride + head * head_dim + dims).to(tl.float32)
    new_key = tl.load(k + row * kv_stride + head * head_dim + dims)
    new_value = tl.load(v + row * kv_stride + head * head_dim + dims)
    place = tl.load(places + row)
    start = (row * heads + head) * most * head_dim
    tl.store(past_k + start + place * head_dim + dims, new_key)
    tl.store(past_v + start + place * head_dim + dims, new_value)
    # The first lane begins with the new token, which is therefore never read back.
    is_first = lanes == 0
    largest = tl.where(is_first, tl.sum(query * new_key.to(tl.float32), 0), LOWEST)
    total = tl.where(is_first, 1.0, 0.0)
    found = tl.where(is_first[:, None], new_value.to(tl.float32)[None], 0.0)
    for first in range(0, place, block):
        is_past = first + lanes < place
        cells = start + (first + lanes)[:, None] * head_dim + dims[None]
        key = tl.load(past_k + cells, mask=is_past[:, None], other=0.0).to(tl.float32)
        value = tl.load(past_v + cells, mask=is_past[:, None], other=0.0).to(tl.float32)
        scores = tl.where(is_past, tl.sum(key * query[None], 1), LOWEST)
        new_largest = tl.maximum(largest, scores)
        shrink, weights = tl.exp(largest - new_largest), tl.where(is_past, tl.exp(scores - new_largest), 0.0)
        total = total * shrink + weights
        found = found * shrink[:, None] + value * weights[:, None]
        largest = new_largest
    weights = tl.exp(largest - tl.max(largest, 0))
    result = tl.sum(found * weights[:, None], 0) / tl.sum(total * weights, 0)
    tl.store(out + (row * heads + head) * head_dim + dims, result.to(out.dtype.element_ty))
