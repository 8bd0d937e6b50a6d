"""Keys and values of the slots' tokens and of their windows' encoder positions, allocated once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engine.model.decoder import Decoder, DecoderLayer
from pipeline.engine.model.layers import attend
from pipeline.engine.model.shape import Shape


class SlotCaches:
    """Per layer: past [slots, heads, tokens, head_dim] and memory [slots, heads, positions, head_dim]."""

    def __init__(
        self,
        shape: Shape,
        size: int,
        num_positions: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        def allocate(length: int) -> list[Tensor]:
            block = (size, shape.decoder_heads, length, shape.decoder_head_dim)
            return [torch.zeros(block, device=device, dtype=dtype) for _ in range(shape.decoder_layers)]

        self.past_k, self.past_v = allocate(shape.target_positions), allocate(shape.target_positions)
        self.memory_k, self.memory_v = allocate(num_positions), allocate(num_positions)

    @property
    def num_positions(self) -> int:
        return self.memory_k[0].shape[2]

    def write_memory(self, rows: Tensor, decoder: Decoder, hidden: Tensor) -> None:
        """Projects encoder outputs [rows, num_positions, dim] into the slots' rows, once per window."""
        for layer, keys, values in zip(decoder.layers, self.memory_k, self.memory_v, strict=True):
            assert isinstance(layer, DecoderLayer)
            for cache, new in zip((keys, values), layer.project_memory(hidden), strict=True):
                _write_rows(cache, rows, new)

    def select(self, rows: Tensor) -> SlotCaches:
        """A copy with some slots only."""
        chosen = object.__new__(SlotCaches)
        for name, tensors in vars(self).items():
            setattr(chosen, name, [tensor[rows] for tensor in tensors])
        return chosen

    def prefill(self, rows: Tensor) -> Prefill:
        """The view for the first tokens of some slots."""
        return Prefill(caches=self, rows=rows)

    def step(self, positions: Tensor, longest: int, *, is_even: bool) -> Step:
        """The view for one more token in every slot.

        positions: where each slot's token goes, int64 [slots]. longest: the largest of the live ones, plus 1
        is the number of keys looked at. is_even: all live slots are at the same position, so no mask.
        """
        num_keys = longest
        mask = None
        if not is_even:
            keys = torch.arange(num_keys, device=positions.device)
            mask = (keys <= positions[:, None])[:, None, None]
        slots = torch.arange(len(positions), device=positions.device)
        return Step(caches=self, slots=slots, positions=positions, num_keys=num_keys, mask=mask)


@dataclass(frozen=True, kw_only=True)
class Prefill:
    """Several tokens of fresh slots at once: they see only one another."""

    caches: SlotCaches
    rows: Tensor

    def attend_past(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.caches.past_k[layer][self.rows, :, : k.shape[2]] = k
        self.caches.past_v[layer][self.rows, :, : v.shape[2]] = v
        return attend(q, k, v, causal=True)

    def attend_memory(self, layer: int, q: Tensor) -> Tensor:
        keys, values = self.caches.memory_k[layer], self.caches.memory_v[layer]
        if len(self.rows) == len(keys):
            return attend(q, keys, values)
        if q.is_cuda:
            return attend(q, keys[self.rows], values[self.rows])
        rows = [slice(row, row + 1) for row in self.rows.tolist()]
        return torch.cat(
            [attend(one[None], keys[row], values[row]) for one, row in zip(q, rows, strict=True)]
        )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One token in every slot."""

    caches: SlotCaches
    slots: Tensor
    positions: Tensor
    num_keys: int
    mask: Tensor | None

    def attend_past(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.caches.past_k[layer], self.caches.past_v[layer]
        if self.mask is None:
            keys[:, :, self.num_keys - 1] = k[:, :, 0]
            values[:, :, self.num_keys - 1] = v[:, :, 0]
        else:
            keys[self.slots, :, self.positions] = k[:, :, 0]
            values[self.slots, :, self.positions] = v[:, :, 0]
        return attend(q, keys[:, :, : self.num_keys], values[:, :, : self.num_keys], mask=self.mask)

    def attend_memory(self, layer: int, q: Tensor) -> Tensor:
        return attend(q, self.caches.memory_k[layer], self.caches.memory_v[layer])


def _write_rows(cache: Tensor, rows: Tensor, new: Tensor) -> None:
    """cache[rows] = new for large rows; on a CPU copying row by row is three times as fast as indexing."""
    if cache.is_cuda:
        cache.index_copy_(0, rows, new)
    else:
        for row, values in zip(rows.tolist(), new, strict=True):
            cache[row].copy_(values)
