"""A memory in 8 bits of random keys and values, and attention to it in float64; needs torch alone."""

from __future__ import annotations

import torch

from pipeline.engine.decoding.memory import Int8Memory


def made(shape, dtype=torch.float32):
    """Queries, and a memory of 8 bits that holds random keys and values of unequal size."""
    slots, heads, tokens, positions, head_dim = shape
    generator = torch.Generator().manual_seed(sum(shape))
    q = torch.randn(slots, heads, tokens, head_dim, generator=generator) * 0.3
    loud = torch.rand(slots, heads, positions, 1, generator=generator) * 4
    keys, values = (
        loud * torch.randn(slots, heads, positions, head_dim, generator=generator) for _ in range(2)
    )
    memory = Int8Memory(
        keys=torch.zeros(keys.shape, dtype=torch.int8), values=torch.zeros(keys.shape, dtype=torch.int8),
        key_scales=torch.zeros(keys.shape[:3]), value_scales=torch.zeros(keys.shape[:3]),
    )  # fmt: skip
    memory.write(torch.arange(slots), keys, values)
    return q.to(dtype), memory


def exact(q, memory, slots):
    """The same attention in float64."""
    keys, values = (
        (ints.double() * scales.double()[..., None])[slots]
        for ints, scales in ((memory.keys, memory.key_scales), (memory.values, memory.value_scales))
    )
    return (q.double() @ keys.transpose(2, 3)).softmax(-1) @ values
