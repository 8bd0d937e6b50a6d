"""The encoder's positions that the slots look at, of all layers of the decoder.

On a GPU all slots have equally many and lie in one block, so that a step is always the same. On a CPU each
window has its own number of them. What was loaded together and is of one size lies in one block there, and a
step attends to runs of neighbours in it: what is sparse decodes beside what is dense, and a free slot costs
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from pipeline.engine.decoding.memory import Memory, allocate
from pipeline.engine.model.decoder import Decoder, DecoderLayer
from pipeline.engine.model.shape import Shape
from pipeline.engine.options import MemoryDtype


class SlotMemory(Protocol):
    """Keys and values of the slots' windows in every layer."""

    def write(self, slots: Tensor, decoder: Decoder, hidden: Sequence[Tensor]) -> None:
        """Projects encoder outputs, [positions, dim] each, into some slots."""
        ...

    def free(self, slot: int) -> None:
        """Nobody looks at a slot's window any more."""
        ...

    def num_positions(self, slot: int) -> int:
        """Those of a slot's window."""
        ...

    def attend(self, layer: int, q: Tensor, slots: Tensor | None = None) -> Tensor:
        """Attends with q, [rows, heads, tokens, head_dim], each row to its slot; None: to all slots."""
        ...

    def select(self, slots: Tensor) -> SlotMemory:
        """A copy with some slots only, of which each comes once and the rest are free."""
        ...


@dataclass(frozen=True, kw_only=True)
class EqualMemory:
    """Slots of one size. layers: of each layer, with a row for each slot."""

    layers: Sequence[Memory]

    @classmethod
    def allocate(
        cls,
        shape: Shape,
        size: int,
        num_positions: int,
        *,
        kind: MemoryDtype,
        device: torch.device,
        dtype: torch.dtype,
    ) -> EqualMemory:
        """Room for `size` slots of so many positions."""
        layers = range(shape.decoder_layers)
        return cls(
            layers=[
                allocate(shape, size, num_positions, dtype=kind, device=device, torch_dtype=dtype)
                for _ in layers
            ]
        )

    def write(self, slots: Tensor, decoder: Decoder, hidden: Sequence[Tensor]) -> None:
        together = torch.stack(list(hidden))
        for layer, memory in zip(decoder.layers, self.layers, strict=True):
            assert isinstance(layer, DecoderLayer)
            memory.write(slots, *layer.project_memory(together))

    def free(self, slot: int) -> None:
        pass

    def num_positions(self, slot: int) -> int:  # noqa: ARG002
        return self.layers[0].num_positions

    def attend(self, layer: int, q: Tensor, slots: Tensor | None = None) -> Tensor:
        return self.layers[layer].attend(q, slots)

    def select(self, slots: Tensor) -> EqualMemory:
        return EqualMemory(layers=[memory.select(slots) for memory in self.layers])


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a slot's window lies: its row in a block, which has a memory for each layer."""

    block: Sequence[Memory]
    row: int


@dataclass(kw_only=True)
class Run:
    """Rows of a question from `first` to `stop` that lie side by side. layers: what they look at."""

    first: int
    stop: int
    layers: Sequence[Memory]


class MixedMemory:
    """Slots of any size each. dtype: of the keys and values on torch's side, where `kind` is `same`."""

    def __init__(self, shape: Shape, size: int, *, kind: MemoryDtype, dtype: torch.dtype) -> None:
        self._shape, self._kind, self._dtype = shape, kind, dtype
        self._places: list[Place | None] = [None] * size
        self._runs: list[Run] | None = None  # of all slots

    def write(self, slots: Tensor, decoder: Decoder, hidden: Sequence[Tensor]) -> None:
        loaded = zip(slots.tolist(), hidden, strict=True)
        for size, group in groupby(loaded, key=lambda one: len(one[1])):
            self._write_block(list(group), size, decoder)
        self._runs = None

    def _write_block(self, windows: Sequence[tuple[int, Tensor]], size: int, decoder: Decoder) -> None:
        block = EqualMemory.allocate(
            self._shape, len(windows), size, kind=self._kind, device=torch.device("cpu"), dtype=self._dtype
        ).layers
        for row, (slot, hidden) in enumerate(windows):
            for layer, memory in zip(decoder.layers, block, strict=True):
                assert isinstance(layer, DecoderLayer)
                memory.write(torch.tensor([row]), *layer.project_memory(hidden[None]))
            self._places[slot] = Place(block=block, row=row)

    def free(self, slot: int) -> None:
        self._places[slot], self._runs = None, None

    def num_positions(self, slot: int) -> int:
        place = self._places[slot]
        return 0 if place is None else place.block[0].num_positions

    def attend(self, layer: int, q: Tensor, slots: Tensor | None = None) -> Tensor:
        runs = self._runs_of_all if slots is None else list(_runs([self._places[n] for n in slots.tolist()]))
        if len(runs) == 1 and runs[0].stop - runs[0].first == len(q):
            return runs[0].layers[layer].attend(q)
        out = torch.zeros_like(q)
        for run in runs:
            out[run.first : run.stop] = run.layers[layer].attend(q[run.first : run.stop])
        return out

    @property
    def _runs_of_all(self) -> list[Run]:
        if self._runs is None:
            self._runs = list(_runs(self._places))
        return self._runs

    def select(self, slots: Tensor) -> MixedMemory:
        chosen = MixedMemory(self._shape, 0, kind=self._kind, dtype=self._dtype)
        numbers = slots.tolist()
        chosen._places = [
            None if number in numbers[:n] else self._places[number] for n, number in enumerate(numbers)
        ]
        return chosen


def _runs(places: Sequence[Place | None]) -> Iterator[Run]:
    """The neighbours that lie side by side in a block too."""

    def line(one: tuple[int, Place | None]) -> tuple[int, int] | None:
        number, place = one
        return None if place is None else (id(place.block), place.row - number)

    for key, group in groupby(enumerate(places), key=line):
        rows = list(group)
        if key is None:
            continue
        (first, place), stop = rows[0], rows[-1][0] + 1
        assert place is not None
        end = place.row + stop - first
        yield Run(first=first, stop=stop, layers=[memory.part(place.row, end) for memory in place.block])
