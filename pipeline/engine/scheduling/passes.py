"""Passes of windows through encoder and slots, under one model and one set of options."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.engine.decoding.beam_slots import Beams, BeamSlots
from pipeline.engine.decoding.caches import NO_HEADS, Heads
from pipeline.engine.decoding.loops import runaway_tokens
from pipeline.engine.decoding.rules import Rules
from pipeline.engine.decoding.slots import Slots
from pipeline.engine.decoding.tasks import Decoding, Task
from pipeline.engine.model.whisper import Model
from pipeline.engine.options import EngineOptions
from pipeline.engine.scheduling.encoding import WindowEncoder
from pipeline.engine.scheduling.scheduler import Scheduler
from pipeline.engine.scheduling.work import Item, Pass, Work

__all__ = ["Pass", "Passes", "Work"]


class Passes:
    """Decodes windows, those of all threads together. heads: those whose queries stay (see `Decoding`)."""

    def __init__(
        self,
        model: Model,
        options: EngineOptions,
        *,
        batch_size: int,
        num_lanes: int = 1,
        threads: int | None = None,
        heads: Heads = NO_HEADS,
    ) -> None:
        self._model, self._options, self._heads = model, options, heads
        self._has_times = options.timestamps == "tokens"
        self._rules = Rules(model.vocabulary, model.device, timestamps=self._has_times)
        self._previous = self.encode_prompt(options.initial_prompt or (options.hotwords and "")) or ()
        self._encoding = WindowEncoder(model)
        self.num_lanes = num_lanes
        self._scheduler = Scheduler(
            self._encoding,
            self._new_slots,
            self._start,
            batch_size=batch_size,
            num_lanes=num_lanes,
            threads=threads,
            are_mixed=model.device.type == "cpu",
        )

    def encode_prompt(self, prompt: str | None) -> tuple[int, ...] | None:
        """The tokens of what was said before a window, at most half the decoder's context; None for None."""
        if prompt is None:
            return None
        half = self._model.shape.target_positions // 2
        hotwords = self._options.hotwords or ""
        return tuple(self._model.vocabulary.encode_prompt(prompt, half, hotwords=hotwords))

    def run(self, works: Sequence[Work], settings: Pass | Sequence[Pass]) -> list[Decoding]:
        """Decodes every window once, by one pass or one each; results in the same order."""
        each = [settings] * len(works) if isinstance(settings, Pass) else settings
        return self._scheduler.run(works, each)

    def run_errand(self, works: Sequence[Work], errand: Callable[[], None]) -> None:
        """Runs something else on the device, between its passes; `works` pay for its time."""
        self._scheduler.run_errands([(works, errand)])

    def run_errands(self, errands: Sequence[tuple[Sequence[Work], Callable[[], None]]]) -> None:
        """Runs other things on the device, between its passes; the works of each pay for its time."""
        self._scheduler.run_errands(errands)

    def give_up(self) -> None:
        """Ends the calls of all threads with `GivenUp`, and every later one."""
        self._scheduler.give_up()

    def _new_slots(self, number: int, num_positions: int | None) -> Slots | BeamSlots:
        memory_dtype = self._options.memory_dtype
        if self._options.beam_size == 1:
            return Slots(
                self._model,
                self._rules,
                size=number,
                num_positions=num_positions,
                memory_dtype=memory_dtype,
                heads=self._heads,
            )
        beams = Beams(
            size=self._options.beam_size,
            patience=1.0 if self._options.patience is None else self._options.patience,
            length_penalty=self._options.length_penalty,
        )
        return BeamSlots(
            self._model,
            self._rules,
            size=number,
            num_positions=num_positions,
            beams=beams,
            memory_dtype=memory_dtype,
        )

    def _start(self, slots: Slots | BeamSlots, items: list[Item]) -> list[Decoding]:
        """Encodes some windows and starts them in free slots; returns those that finished at once."""
        hidden = self._encoding.encode(items)
        rows = slots.load(hidden)
        self._detect(slots, rows, [item.work for item in items])
        tasks = [self._task(item.number, item.work, item.settings) for item in items]
        for item, row in zip(items, hidden, strict=True):
            _keep(item, row)
        return slots.start(rows, tasks)

    def _detect(self, slots: Slots | BeamSlots, rows: Tensor, works: Sequence[Work]) -> None:
        if all(work.language is not None for work in works):
            return
        for work, (language, probability) in zip(works, slots.detect_languages(rows), strict=True):
            if work.language is None:
                work.language, work.language_probability = language, probability

    def _task(self, index: int, work: Work, settings: Pass) -> Task:
        start = self._model.vocabulary.start_sequence(
            work.language, self._options.task, timestamps=self._has_times
        )
        previous = self._previous if work.previous is None else work.previous
        prompt = (*previous, *start)
        return Task(
            index=index,
            prompt=prompt,
            start=len(previous),
            max_new_tokens=self._max_new_tokens(len(prompt), settings),
            temperature=settings.temperature,
            seed=work.seed * 16 + round(settings.temperature * 10),
            max_loop=runaway_tokens(len(work.samples) / SAMPLE_RATE),
        )

    def _max_new_tokens(self, prompt_tokens: int, settings: Pass) -> int:
        room = self._model.shape.target_positions - prompt_tokens
        asked = settings.max_new_tokens or self._options.max_new_tokens
        limits = [asked, self._model.vocabulary.max_length, room]
        return min(limit for limit in limits if limit is not None)


def _keep(item: Item, hidden: Tensor) -> None:
    """Keeps an encoder output where the pass asks for it."""
    if not item.settings.keeps_hidden:
        return
    item.hidden = hidden
    if item.settings.is_dense and item.work.hidden is None:
        item.work.hidden = hidden
