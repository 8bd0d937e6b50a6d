"""Items of work to encoder outputs: which of them go through the encoder together, and by which way."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from pipeline.engine.model.whisper import Model
from pipeline.engine.scheduling.prefetch import Prefetch
from pipeline.engine.scheduling.work import Item, Pass
from pipeline.engine.sparsify.phases import encode_early
from pipeline.engine.sparsify.scoring_layer import encode_late
from pipeline.engine.sparsify.selectors import num_kept

READ_TOGETHER = 32  # windows in phase A at once on a GPU
PREPARED_PER_STEP = 2  # windows whose features are made beside a decoder step: a text has 30 steps or more


class WindowEncoder:
    """The encoder of one model, for windows at any phase."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._ahead = Prefetch(model.features, model.device)
        # On a CPU one window at a time: blocks past 32 MB would be mapped and cleared anew by every operation
        # (measured: a 3.6 times slower GELU at 4 windows).
        self._is_batched = model.device.type == "cuda"

    @property
    def read_together(self) -> int:
        """How many windows phase A takes at once."""
        return READ_TOGETHER if self._is_batched else 1

    def size_of(self, settings: Pass) -> int | None:
        """The positions that a pass keeps; None where phase A must tell."""
        if settings.needs_reading:
            return None
        sparsity = 0.0 if settings.level is None else settings.level.sparsity
        assert sparsity is not None
        return num_kept(sparsity, self._model.shape.source_positions)

    def read(self, items: Sequence[Item]) -> None:
        """Phase A of some items: sets their `early` and `size`."""
        for group in self._grouped(items, lambda item: item.settings.level):
            level = group[0].settings.level
            assert level is not None
            found = encode_early(
                self._model.encoder,
                self._features(group),
                level=level,
                num_samples=[len(item.work.samples) for item in group],
                seeds=[item.work.seed for item in group],
            )
            for item, early in zip(group, found, strict=True):
                item.early, item.kept, item.size = early, early.kept, len(early.kept)

    def encode(self, items: Sequence[Item]) -> Tensor:
        """Encoder outputs of items of one size: [items, size, dim]."""
        rows: dict[int, Tensor] = {}
        for group in self._grouped(items, _way):
            rows |= {item.number: row for item, row in zip(group, self._encode_group(group), strict=True)}
        return torch.stack([rows[item.number] for item in items])

    def _encode_group(self, items: Sequence[Item]) -> Tensor:
        settings = items[0].settings
        if settings.is_dense:
            known = [item.work.hidden for item in items if item.work.hidden is not None]
            if len(known) == len(items):
                return torch.stack(known)
            return self._model.encoder(self._features(items))
        assert settings.level is not None
        self.read([item for item in items if item.early is None])
        early = torch.stack([item.early.hidden for item in items if item.early is not None])
        for item in items:
            item.early = None
        return encode_late(self._model.encoder, early, settings.level.layer)

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
    return level, item.work.hidden is not None, item.early is not None
