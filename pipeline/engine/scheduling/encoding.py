"""Items of work to encoder outputs: which of them go through the encoder together, and by which way."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from pipeline.engine.model.whisper import Model
from pipeline.engine.scheduling.prefetch import Prefetch
from pipeline.engine.scheduling.work import Item, Pass, Work
from pipeline.engine.sparsify.ends import thinned_positions
from pipeline.engine.sparsify.scoring_layer import encode_sparse

PREPARED_PER_STEP = 2  # windows whose features are made beside a decoder step: a text has 30 steps or more


class WindowEncoder:
    """The encoder of one model, dense and sparse."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._ahead = Prefetch(model.features, model.device)
        # On a CPU one window at a time: blocks past 32 MB would be mapped and cleared anew by every operation
        # (measured: a 3.6 times slower GELU at 4 windows).
        self._is_batched = model.device.type == "cuda"

    def positions_of(self, work: Work, settings: Pass) -> tuple[Tensor | None, int]:
        """The positions of a window that go into the first layer (None for all), and how many it keeps."""
        level, total = settings.level, self._model.shape.source_positions
        if level is None:
            return None, total
        left = thinned_positions(work.samples, total) if level.thin_ends else None
        return left, level.size_of(total if left is None else len(left), total)

    def encode(self, items: Sequence[Item]) -> list[Tensor]:
        """The encoder's output of each item, [size, dim]."""
        rows: dict[int, Tensor] = {}
        for group in self._grouped(items, _way):
            rows |= {item.number: row for item, row in zip(group, self._encode_group(group), strict=True)}
        return [rows[item.number] for item in items]

    def _encode_group(self, items: Sequence[Item]) -> Tensor:
        settings = items[0].settings
        if settings.is_dense:
            known = [item.work.hidden for item in items if item.work.hidden is not None]
            if len(known) == len(items):
                return torch.stack(known)
            return self._model.encoder(self._features(items))
        assert settings.level is not None
        device, left = self._model.device, [item.positions for item in items if item.positions is not None]
        hidden, kept = encode_sparse(
            self._model.encoder,
            self._features(items),
            level=settings.level,
            seeds=[item.work.seed for item in items],
            positions=torch.stack(left).to(device) if left else None,
        )
        for item, row in zip(items, kept, strict=True):
            item.kept = row
        return hidden

    def prepare(self, items: Iterable[Item]) -> None:
        """Makes the features of the first of some waiting items ahead, where that runs beside the model."""
        waiting = (item for item in items if item.prepared is None and item.needs_features)
        if self._is_batched:
            for item in islice(waiting, PREPARED_PER_STEP):
                item.prepared = self._ahead.prepare(item.work.samples)

    def _features(self, items: Sequence[Item]) -> Tensor:
        mel = self._ahead.collect([item.work.samples for item in items], [item.prepared for item in items])
        for item in items:
            item.prepared = None
        return mel

    def _grouped(self, items: Iterable[Item], key: Callable[[Item], Hashable]) -> Iterator[list[Item]]:
        """Items that may go through the encoder together."""
        groups: dict[Hashable, list[Item]] = {}
        for item in items:
            groups.setdefault(key(item) if self._is_batched else item.number, []).append(item)
        yield from groups.values()


def _way(item: Item) -> Hashable:
    """What must be equal for items to be encoded together."""
    level = None if item.settings.is_dense else item.settings.level
    return level, item.work.hidden is not None, None if item.positions is None else len(item.positions)
