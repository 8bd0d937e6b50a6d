"""Keys and values of the slots' tokens and of their windows' encoder positions, allocated once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engine.decoding.slot_memory import EqualMemory, MixedMemory, SlotMemory
from pipeline.engine.model.decoder import Decoder, DecoderLayer
from pipeline.engine.model.kernels import has_kernel, is_block
from pipeline.engine.model.layers import attend
from pipeline.engine.model.whisper import Model
from pipeline.engine.options import MemoryDtype

KERNEL = "pipeline.engine.decoding.past_attention"
Heads = Mapping[int, Sequence[int]]  # of the decoder, by layer
NO_HEADS: Heads = {}


class SlotCaches:
    """Per layer: past [slots * width, heads, tokens, head_dim], and the memory of the slots.

    num_positions: those of every slot; None: each window has its own number, on a CPU.
    width: rows of tokens in every slot, side by side, which share its memory.
    heads: by layer those whose queries of the memory are kept, for who asks later when each token was said.
    queries: by layer what they asked, [slots, tokens, heads, head_dim].
    """

    def __init__(
        self,
        model: Model,
        size: int,
        num_positions: int | None,
        *,
        width: int = 1,
        memory_dtype: MemoryDtype = "same",
        heads: Heads = NO_HEADS,
    ) -> None:
        shape, device, dtype = model.shape, model.device, model.torch_dtype
        block = (size * width, shape.decoder_heads, shape.target_positions, shape.decoder_head_dim)
        self.past_k, self.past_v = (
            [torch.zeros(block, device=device, dtype=dtype) for _ in range(shape.decoder_layers)]
            for _ in range(2)
        )
        self.memory: SlotMemory
        if num_positions is None:
            self.memory = MixedMemory(shape, size, kind=memory_dtype, dtype=model.memory_dtype)
        else:
            self.memory = EqualMemory.allocate(
                shape, size, num_positions, kind=memory_dtype, device=device, dtype=model.memory_dtype
            )
        self.width = width
        self.heads = {layer: torch.tensor(some, device=device) for layer, some in heads.items()}
        self.queries = {
            layer: torch.zeros(
                (size, shape.target_positions, len(some), shape.decoder_head_dim), device=device, dtype=dtype
            )
            for layer, some in heads.items()
        }

    @property
    def has_kernel(self) -> bool:
        """Whether a step attends to earlier tokens by the kernel, which knows where each row ends."""
        past = self.past_k[0]
        return is_block(past.shape[-1]) and has_kernel(KERNEL, past.device)

    def select(self, rows: Tensor) -> SlotCaches:
        """A copy with some slots only."""
        chosen = object.__new__(SlotCaches)
        chosen.width, chosen.heads = self.width, self.heads
        chosen.queries = {layer: queries[rows] for layer, queries in self.queries.items()}
        of_past = self._rows(rows).flatten()
        chosen.past_k, chosen.past_v = ([t[of_past] for t in past] for past in (self.past_k, self.past_v))
        chosen.memory = self.memory.select(rows)
        return chosen

    def reorder(self, rows: Tensor, num_keys: int) -> None:
        """Every row of tokens becomes a copy of the one that is named in its place, as far as `num_keys`."""
        for tensor in (*self.past_k, *self.past_v):
            tensor[:, :, :num_keys] = tensor[rows, :, :num_keys]

    def spread(self, slots: Tensor) -> None:
        """The first row of tokens of some slots is copied to their others."""
        rows = self._rows(slots)
        for tensor in (*self.past_k, *self.past_v):
            tensor[rows[:, 1:]] = tensor[rows[:, :1]]

    def queries_of(self, slot: int, start: int, stop: int) -> dict[int, Tensor]:
        """What the tokens of a slot from `start` on asked its memory, by layer, [heads, tokens, head_dim]."""
        return {layer: all_[slot, start:stop].transpose(0, 1).clone() for layer, all_ in self.queries.items()}

    def _rows(self, slots: Tensor) -> Tensor:
        """The rows of tokens of some slots, [slots, width]."""
        return slots[:, None] * self.width + torch.arange(self.width, device=slots.device)

    def prefill(self, rows: Tensor) -> Prefill:
        """The view for the first tokens of some slots."""
        return Prefill(caches=self, rows=rows)

    def step(self, positions: Tensor, num_keys: int) -> Step:
        """The view for one more token in every slot.

        positions: where each slot's token goes, int64 [slots]. num_keys: how many of the first are looked at,
        which the kernel need not be told.
        """
        mask = None
        if not self.has_kernel:
            keys = torch.arange(num_keys, device=positions.device)
            mask = (keys <= positions[:, None])[:, None, None]
        slots = torch.arange(len(positions), device=positions.device)
        return Step(caches=self, slots=slots, positions=positions, num_keys=num_keys, mask=mask)


@dataclass(frozen=True, kw_only=True)
class Prefill:
    """Several tokens of fresh slots at once, in their first rows: they see only one another."""

    caches: SlotCaches
    rows: Tensor

    def attend_past(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        firsts = self.rows * self.caches.width
        self.caches.past_k[layer][firsts, :, : k.shape[2]] = k
        self.caches.past_v[layer][firsts, :, : v.shape[2]] = v
        return attend(q, k, v, causal=True)

    def attend_memory(self, layer: int, q: Tensor) -> Tensor:
        if (heads := self.caches.heads.get(layer)) is not None:
            self.caches.queries[layer][self.rows, : q.shape[2]] = q[:, heads].transpose(1, 2)
        return self.caches.memory.attend(layer, q, self.rows)


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
        if self.caches.has_kernel:
            from pipeline.engine.decoding.past_attention import attend_past

            return attend_past(q, k, v, keys, values, self.positions)
        keys[self.slots, :, self.positions] = k[:, :, 0]
        values[self.slots, :, self.positions] = v[:, :, 0]
        return attend(q, keys[:, :, : self.num_keys], values[:, :, : self.num_keys], mask=self.mask)

    def attend_memory(self, layer: int, q: Tensor) -> Tensor:
        memory, width = self.caches.memory, self.caches.width
        if (heads := self.caches.heads.get(layer)) is not None:
            self.caches.queries[layer][self.slots, self.positions] = q[:, heads, 0]
        if width == 1:
            return memory.attend(layer, q)
        together = q.view(-1, width, *q.shape[1:]).squeeze(3).transpose(1, 2)
        return memory.attend(layer, together).transpose(1, 2).reshape(q.shape)


@dataclass(frozen=True, kw_only=True)
class WholeText:
    """Whole texts at once, each token seeing those before it.

    memory: keys and values of each layer, [rows, heads, positions, head_dim].
    """

    memory: Sequence[tuple[Tensor, ...]]

    def attend_past(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002
        return attend(q, k, v, causal=True)

    def attend_memory(self, layer: int, q: Tensor) -> Tensor:
        keys, values = self.memory[layer]
        return attend(q, keys, values)


def project_memory(decoder: Decoder, hidden: Tensor) -> list[tuple[Tensor, ...]]:
    """Keys and values of each layer of encoder outputs [rows, positions, dim]."""
    return [layer.project_memory(hidden) for layer in decoder.layers if isinstance(layer, DecoderLayer)]
