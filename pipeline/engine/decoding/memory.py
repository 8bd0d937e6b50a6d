"""What cross-attention reads for every token: keys and values of the encoder's positions of all slots.

Nothing of it is shared by the windows of a batch, so on a GPU reading it is what limits a large decoder. In
8 bits, with a scale for each head and position, it is half as much.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from pipeline.engine.model.kernels import has_kernel, is_block
from pipeline.engine.model.layers import FEW_QUERIES, attend
from pipeline.engine.model.shape import Shape
from pipeline.engine.options import MemoryDtype

KERNEL = "pipeline.engine.decoding.int8_attention"
STEPS = 127.0
SMALLEST_PEAK = 1e-12
SCALE_BYTES = 4
WIDEST = torch.complex128.itemsize


class Memory(Protocol):
    """Of one layer of the decoder."""

    @property
    def num_positions(self) -> int:
        """Of the encoder."""
        ...

    def write(self, rows: Tensor, keys: Tensor, values: Tensor) -> None:
        """Puts new windows into some slots; keys, values: [rows, heads, positions, head_dim]."""
        ...

    def attend(self, q: Tensor, rows: Tensor | None = None) -> Tensor:
        """Attends with q, [rows, heads, tokens, head_dim], each row to its slot; rows None: to all slots."""
        ...

    def select(self, rows: Tensor) -> Memory:
        """A copy with some slots only."""
        ...

    def part(self, start: int, stop: int) -> Memory:
        """A view of slots side by side."""
        ...


def allocate(
    shape: Shape,
    size: int,
    num_positions: int,
    *,
    dtype: MemoryDtype,
    device: torch.device,
    torch_dtype: torch.dtype,
) -> Memory:
    """Room for `size` windows in one layer. dtype: `same` is torch_dtype."""
    block = (size, shape.decoder_heads, num_positions, shape.decoder_head_dim)
    if dtype == "int8":
        keys, values = (torch.zeros(block, device=device, dtype=torch.int8) for _ in range(2))
        scales = [torch.zeros(block[:3], device=device) for _ in range(2)]
        return Int8Memory(keys=keys, values=values, key_scales=scales[0], value_scales=scales[1])
    keys, values = (torch.zeros(block, device=device, dtype=torch_dtype) for _ in range(2))
    return PlainMemory(keys=keys, values=values)


@dataclass(frozen=True, kw_only=True)
class PlainMemory:
    """In one of torch's types: [slots, heads, positions, head_dim] each."""

    keys: Tensor
    values: Tensor

    @property
    def num_positions(self) -> int:
        return self.keys.shape[2]

    def write(self, rows: Tensor, keys: Tensor, values: Tensor) -> None:
        _write_rows(self.keys, rows, keys)
        _write_rows(self.values, rows, values)

    def attend(self, q: Tensor, rows: Tensor | None = None) -> Tensor:
        keys, values = self.keys, self.values
        if rows is not None and len(rows) < len(keys):  # else they are all of them, in order
            keys, values = keys[rows], values[rows]
        if q.shape[2] > FEW_QUERIES:
            return attend(q, keys.to(q.dtype), values.to(q.dtype))
        return attend(q.to(keys.dtype), keys, values).to(q.dtype)

    def select(self, rows: Tensor) -> PlainMemory:
        return PlainMemory(keys=self.keys[rows], values=self.values[rows])

    def part(self, start: int, stop: int) -> PlainMemory:
        return PlainMemory(keys=self.keys[start:stop], values=self.values[start:stop])


@dataclass(frozen=True, kw_only=True)
class Int8Memory:
    """In 8 bits: int8 [slots, heads, positions, head_dim], and float32 scales [slots, heads, positions]."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor
    value_scales: Tensor

    @property
    def num_positions(self) -> int:
        return self.keys.shape[2]

    def write(self, rows: Tensor, keys: Tensor, values: Tensor) -> None:
        for ints, scales, new in (
            (self.keys, self.key_scales, keys), (self.values, self.value_scales, values),
        ):  # fmt: skip
            new_ints, new_scales = quantise(new)
            _write_rows(ints, rows, new_ints)
            _write_rows(scales, rows, new_scales)

    def attend(self, q: Tensor, rows: Tensor | None = None) -> Tensor:
        slots = self._all_slots if rows is None else rows
        if is_block(q.shape[-1]) and has_kernel(KERNEL, q.device):
            from pipeline.engine.decoding.int8_attention import attend_int8

            return attend_int8(q, self.keys, self.key_scales, self.values, self.value_scales, slots)
        if q.is_cuda:
            return self._attend_widened(q, slots)
        return torch.cat([self._attend_widened(*one) for one in zip(q.split(1), slots.split(1), strict=True)])

    @property
    def _tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _all_slots(self) -> Tensor:
        return torch.arange(len(self.keys), device=self.keys.device)

    def _attend_widened(self, q: Tensor, slots: Tensor) -> Tensor:
        """What is read is made of q's type first, so this is no faster than `PlainMemory`."""
        keys, values = self.keys[slots].to(q.dtype), self.values[slots].to(q.dtype)
        scores = (q @ keys.transpose(2, 3)).float() * self.key_scales[slots][:, :, None]
        weights = scores.softmax(-1) * self.value_scales[slots][:, :, None]
        return weights.to(q.dtype) @ values

    def select(self, rows: Tensor) -> Int8Memory:
        return Int8Memory(**{name: tensor[rows] for name, tensor in self._tensors.items()})

    def part(self, start: int, stop: int) -> Int8Memory:
        return Int8Memory(**{name: tensor[start:stop] for name, tensor in self._tensors.items()})


def bytes_of_number(dtype: MemoryDtype, itemsize: int, head_dim: int) -> float:
    """Bytes that a number of the memory takes, with its share of a scale. itemsize: of the model's type."""
    return 1 + SCALE_BYTES / head_dim if dtype == "int8" else itemsize


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """[..., head_dim] -> int8 of the same shape and float32 scales [...]: x is about int8 * scale."""
    scales = x.abs().amax(-1).float().clamp_(min=SMALLEST_PEAK) / STEPS
    return (x / scales[..., None]).round_().to(torch.int8), scales


def _write_rows(cache: Tensor, rows: Tensor, new: Tensor) -> None:
    """cache[rows] = new for large rows; on a CPU copying row by row is three times as fast as indexing."""
    if cache.is_cuda:
        _widest(cache).index_copy_(0, rows, _widest(new))
    else:
        for row, values in zip(rows.tolist(), new, strict=True):
            cache[row].copy_(values)


def _widest(x: Tensor) -> Tensor:
    """The same bytes in elements of 16, where the last dimension has a number of them: fewer to copy."""
    return x.view(torch.complex128) if x.shape[-1] * x.itemsize % WIDEST == 0 else x
