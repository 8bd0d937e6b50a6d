"""One pass of some windows through encoder and slots, and who pays for the device's time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.model import Model
from pipeline.engine.options import EngineOptions
from pipeline.engine.rules import Rules
from pipeline.engine.slots import Decoding, Slots, Task
from pipeline.engine.sparsify import SELECTORS, encode_sparse, num_kept

# Slots are refilled when one in four is free: a pass over few new windows costs nearly as much as over many.
REFILL_SHARE = 4


@dataclass(kw_only=True)
class Work:
    """A window on its way through the engine.

    language: given or, after the first pass, detected. device_s: its share of the device's time so far.
    hidden: its dense encoder output [positions, dim], kept while it may be decoded once more.
    """

    samples: np.ndarray
    seed: int
    language: str | None
    language_probability: float | None = None
    device_s: float = 0.0
    hidden: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass: how sparse, how warm, and whether dense encoder outputs stay in the works for another."""

    sparsity: float = 0.0
    temperature: float = 0.0
    keeps_hidden: bool = False
    max_new_tokens: int | None = None


class Passes:
    """Decodes windows under one model and one set of options."""

    def __init__(self, model: Model, options: EngineOptions, *, batch_size: int) -> None:
        self._model, self._options = model, options
        self._batch_size = batch_size
        self._rules = Rules(model.vocabulary, model.device, timestamps=options.timestamps)
        half = model.shape.target_positions // 2
        prompt = options.initial_prompt
        self._previous = model.vocabulary.encode_prompt(prompt, half) if prompt else []

    def run(self, works: Sequence[Work], settings: Pass) -> list[Decoding]:
        """Decodes every window once, in slots refilled from those that wait; results in the same order."""
        total = self._model.shape.source_positions
        slots = Slots(
            self._model,
            self._rules,
            size=min(self._batch_size, len(works)),
            num_positions=num_kept(settings.sparsity, total),
        )
        waiting = deque(range(len(works)))
        done: dict[int, Decoding] = {}
        while len(done) < len(works):
            if waiting and slots.num_free >= max(1, slots.size // REFILL_SHARE):
                batch = [waiting.popleft() for _ in range(min(slots.num_free, len(waiting)))]
                finished = self._fill(slots, works, batch, settings)
            else:
                finished = self._step(slots, works, is_last=not waiting)
            done.update({decoding.task.index: decoding for decoding in finished})
        return [done[index] for index in range(len(works))]

    def _step(self, slots: Slots, works: Sequence[Work], *, is_last: bool) -> list[Decoding]:
        with self._charge([works[slot.task.index] for slot in slots.live]):
            if is_last and 2 * len(slots.live) <= slots.size:
                slots.shrink()
            return slots.step()

    def _fill(self, slots: Slots, works: Sequence[Work], batch: list[int], settings: Pass) -> list[Decoding]:
        """Encodes some windows and starts them in free slots; returns those that finished at once."""
        chosen = [works[index] for index in batch]
        with self._charge(chosen):
            hidden = self._encode(chosen, settings.sparsity)
            if settings.keeps_hidden:
                for work, row in zip(chosen, hidden, strict=True):
                    work.hidden = row
            rows = slots.load(hidden)
            self._detect(slots, rows, chosen)
            return slots.start(rows, [self._task(index, works[index], settings) for index in batch])

    def _encode(self, works: Sequence[Work], sparsity: float) -> Tensor:
        """Encoder outputs: [batch, kept positions, dim].

        On a CPU one window at a time: blocks past 32 MB would be mapped and cleared anew by every operation
        (measured: a 3.6 times slower GELU at 4 windows).
        """
        if self._model.device.type == "cuda":
            return self._encode_together(works, sparsity)
        return torch.cat([self._encode_together([work], sparsity) for work in works])

    def _encode_together(self, works: Sequence[Work], sparsity: float) -> Tensor:
        known = [work.hidden for work in works if work.hidden is not None]
        if len(known) == len(works):
            return torch.stack(known)
        mel = self._model.features([work.samples for work in works])
        if sparsity == 0.0:
            return self._model.encoder(mel)
        return encode_sparse(
            self._model.encoder,
            mel,
            layer=self._options.sparsify_layer,
            k=num_kept(sparsity, self._model.shape.source_positions),
            selector=SELECTORS[self._options.selector],
            seeds=[work.seed for work in works],
        )

    def _detect(self, slots: Slots, rows: Tensor, works: Sequence[Work]) -> None:
        if all(work.language is not None for work in works):
            return
        for work, (language, probability) in zip(works, slots.detect_languages(rows), strict=True):
            if work.language is None:
                work.language, work.language_probability = language, probability

    def _task(self, index: int, work: Work, settings: Pass) -> Task:
        start = self._model.vocabulary.start_sequence(
            work.language, self._options.task, timestamps=self._options.timestamps
        )
        prompt = (*self._previous, *start)
        return Task(
            index=index,
            prompt=prompt,
            start=len(self._previous),
            max_new_tokens=self._max_new_tokens(len(prompt), settings),
            temperature=settings.temperature,
            seed=work.seed * 16 + round(settings.temperature * 10),
        )

    def _max_new_tokens(self, prompt_tokens: int, settings: Pass) -> int:
        room = self._model.shape.target_positions - prompt_tokens
        asked = settings.max_new_tokens or self._options.max_new_tokens
        limits = [asked, self._model.vocabulary.max_length, room]
        return min(limit for limit in limits if limit is not None)

    @contextmanager
    def _charge(self, works: Sequence[Work]) -> Iterator[None]:
        """Shares a block's device time out among windows, equally: their positions are equally many."""
        started = time.perf_counter()
        yield
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)
        share = (time.perf_counter() - started) / len(works)
        for work in works:
            work.device_s += share
