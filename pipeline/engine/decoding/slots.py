"""The decoding loop: a fixed set of slots, each decoding one window, refilled as windows finish.

All caches are allocated once. A slot is overwritten in place by its next window, so nothing is copied for the
windows that go on; slots may be at different lengths.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.engine.decoding.caches import NO_HEADS, Heads, SlotCaches
from pipeline.engine.decoding.first_step import (
    likeliest_languages,
    no_speech_probs,
    read_prompts,
    uniform_draws,
)
from pipeline.engine.decoding.graphs import (
    PLAIN_KEY_STEP,
    Launched,
    StepGraphs,
    padded_keys,
    step_graphs,
)
from pipeline.engine.decoding.rules import History, Rules
from pipeline.engine.decoding.tasks import Decoding, Task
from pipeline.engine.model.whisper import Model
from pipeline.engine.options import MemoryDtype


class Slots:
    """`size` windows decoding side by side over encoder outputs of `num_positions` positions, None: of any.

    heads: those whose queries are kept (see `Decoding`).
    """

    def __init__(
        self,
        model: Model,
        rules: Rules,
        *,
        size: int,
        num_positions: int | None,
        memory_dtype: MemoryDtype = "same",
        heads: Heads = NO_HEADS,
    ) -> None:
        device, max_tokens = model.device, model.shape.target_positions
        self._model, self._decoder, self._rules = model, model.decoder, rules
        self._vocabulary = model.vocabulary
        self._caches = SlotCaches(
            model,
            size,
            num_positions,
            memory_dtype=memory_dtype,
            heads=heads,
        )
        self.num_positions = num_positions
        self._tokens = torch.zeros(size, dtype=torch.long, device=device)
        self._positions = torch.zeros(size, dtype=torch.long, device=device)
        self._temperature = torch.zeros(size, device=device)
        self._draws = torch.zeros(size, max_tokens, device=device)
        self._history = History.create(size, device)
        self._graphs = step_graphs(device)
        self._slots: list[Decoding | None] = [None] * size
        self._ahead: Launched | None = None

    @property
    def size(self) -> int:
        return len(self._slots)

    @property
    def live(self) -> list[Decoding]:
        """The windows that decode now."""
        return [slot for slot in self._slots if slot is not None]

    @property
    def _longest(self) -> int:
        """The tokens of the longest window that decodes now."""
        return max(slot.length for slot in self.live)

    @property
    def num_free(self) -> int:
        return self._slots.count(None)

    def load(self, hidden: Sequence[Tensor]) -> Tensor:
        """Writes encoder outputs, [positions, dim] each, into free slots; returns their numbers."""
        free = [number for number, slot in enumerate(self._slots) if slot is None][: len(hidden)]
        rows = torch.tensor(free, device=self._tokens.device)
        self._caches.memory.write(rows, self._decoder, hidden)
        return rows

    def detect_languages(self, rows: Tensor) -> list[tuple[str, float]]:
        """The likeliest language of the windows in loaded slots, and its probability among all."""
        return likeliest_languages(self._model, self._caches.prefill(rows), len(rows))

    def start(self, rows: Tensor, tasks: Sequence[Task]) -> list[Decoding]:
        """Decodes the first token of the windows in loaded slots; returns those that finished with it."""
        out, lengths = read_prompts(self._model, self._caches, rows, tasks)
        silences = no_speech_probs(self._model, out, [task.start for task in tasks])
        for number, task, silence in zip(rows.tolist(), tasks, silences, strict=True):
            self._slots[number] = Decoding(
                task=task, no_speech_prob=silence, num_positions=self._caches.memory.num_positions(number)
            )
        self._positions[rows] = lengths
        self._temperature[rows] = torch.tensor([task.temperature for task in tasks], device=rows.device)
        self._draws[rows] = uniform_draws(tasks, self._draws.shape[1]).to(rows.device)
        started = [self._slots[number] for number in rows.tolist()]
        history = History.create(len(tasks), rows.device)
        is_drawn = self._is_drawn(started)
        last = out[torch.arange(len(tasks), device=rows.device), lengths - 1]
        return self._take(started, self._choose(last, rows, history, first=True, is_drawn=is_drawn))

    def step(self) -> list[Decoding]:
        """Decodes one token in every slot; returns the windows that finished with it.

        Where steps are graphs, the next one is under way when this returns, so that the device works while
        the host looks at tokens. A window that turns out to be finished has decoded one token in vain then,
        and one that is started meanwhile joins in the step after that.
        """
        if self._graphs is None:
            num_keys = padded_keys(self._longest, self._draws.shape[1], PLAIN_KEY_STEP)
            chosen = self.advance(num_keys, is_drawn=self._is_drawn(self._slots))
            return self._take(self._slots, chosen)
        launched = self._ahead or self._launch(self._graphs, further=0)
        goes_on = any(slot.num_left > 1 for slot in self.live)
        self._ahead = self._launch(self._graphs, further=1) if goes_on else None
        return self._take(launched.slots, launched.chosen())

    def _launch(self, graphs: StepGraphs, *, further: int) -> Launched:
        """Starts a step. further: tokens that the device is ahead of what the host has seen."""
        longest = self._longest + further
        most, is_drawn = self._draws.shape[1], self._is_drawn(self._slots)
        num_keys = most if self._caches.has_kernel else padded_keys(longest, most)
        chosen = graphs.run((num_keys, is_drawn), lambda: self.advance(num_keys, is_drawn=is_drawn))
        return Launched.of(self._slots, chosen)

    def advance(self, num_keys: int, *, is_drawn: bool) -> Tensor:
        """One step on the device as it is, no graph: ids and log-probabilities, float64 [2, slots]."""
        cache = self._caches.step(self._positions, num_keys)
        out = self._decoder(self._tokens[:, None], self._positions[:, None], cache)
        self._positions.add_(1).clamp_(max=self._draws.shape[1] - 1)  # a free slot idles at its end
        return self._choose(out[:, 0], None, self._history, first=False, is_drawn=is_drawn)

    def resize(self, size: int) -> None:
        """Makes it `size` slots, the live ones first; costs one copy of the caches."""
        keep = [number for number, slot in enumerate(self._slots) if slot is not None]
        free = [number for number, slot in enumerate(self._slots) if slot is None]
        assert size >= len(keep)
        if self._ahead is not None:
            self._ahead.chosen()  # its graph and its tensors are let go below
        # A slot that is new starts as a copy of one that is not: whatever it holds is overwritten.
        keep += (free + [0] * size)[: size - len(keep)]
        rows = torch.tensor(keep, device=self._tokens.device)
        self._caches = self._caches.select(rows)
        self._tokens, self._positions = self._tokens[rows], self._positions[rows]
        self._temperature, self._draws = self._temperature[rows], self._draws[rows]
        self._history = self._history.select(rows)
        self._slots = [*self.live, *[None] * (size - len(self.live))]
        self._graphs = step_graphs(rows.device)  # all tensors are new

    def _choose(
        self, hidden: Tensor, rows: Tensor | None, history: History, *, first: bool, is_drawn: bool
    ) -> Tensor:
        """Chooses one token for some rows (None: all): ids and log-probabilities, float64 [2, rows]."""
        places = torch.arange(self.size, device=self._tokens.device) if rows is None else rows
        tokens, logprobs = self._rules.choose(
            self._decoder.logits(hidden),
            history,
            first=first,
            temperature=self._temperature[places] if is_drawn else None,
            draw=self._draws[places, self._positions[places]],
        )
        self._tokens[places] = tokens
        if rows is not None:
            self._history.write(rows, history)
        return torch.stack([tokens.double(), logprobs.double()])

    def _is_drawn(self, slots: Sequence[Decoding | None]) -> bool:
        return any(slot is not None and slot.task.temperature > 0 for slot in slots)

    def _take(self, slots: Sequence[Decoding | None], chosen: Tensor) -> list[Decoding]:
        """Records the tokens, with one transfer to the host; returns the windows that finished with them."""
        for slot, token, logprob in zip(slots, *chosen.tolist(), strict=True):
            if slot is not None and not slot.is_finished:
                slot.take(int(token), logprob, self._vocabulary.end)
        return self._release()

    def _release(self) -> list[Decoding]:
        """Frees the slots of finished windows and returns these."""
        finished = []
        for number, slot in enumerate(self._slots):
            if slot is not None and slot.is_finished:
                slot.queries = self._caches.queries_of(number, len(slot.task.prompt) - 1, slot.length)
                self._caches.memory.free(number)
                finished.append(slot)
        self._slots = [None if slot is None or slot.is_finished else slot for slot in self._slots]
        return finished
