"""The decoding loop with beam search: slots that each keep a few hypotheses of one window.

As openai/whisper's BeamSearchDecoder and MaximumLikelihoodRanker, for many windows at once and on the static
caches: the hypotheses of a window share its encoder positions, and what they said before is copied between
them after each token. What is drawn at a temperature has one hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.engine.decoding.caches import SlotCaches
from pipeline.engine.decoding.first_step import (
    likeliest_languages,
    no_speech_probs,
    read_prompts,
    uniform_draws,
)
from pipeline.engine.decoding.graphs import PLAIN_KEY_STEP, padded_keys, step_graphs
from pipeline.engine.decoding.rules import NEVER, History, Rules, draw_tokens
from pipeline.engine.decoding.tasks import Decoding, Task
from pipeline.engine.model.whisper import Model
from pipeline.engine.options import MemoryDtype


@dataclass(frozen=True, kw_only=True)
class Beams:
    """How wide the search is, when it ends, and which hypothesis wins.

    size: hypotheses of a window. patience: it ends when size * patience of them have ended. length_penalty:
    None ranks by the mean log-probability of the tokens, a number by the sum over ((5 + tokens) / 6) ** it
    (Wu et al. 2016).
    """

    size: int
    patience: float
    length_penalty: float | None

    def score(self, num_tokens: int, sum_logprob: float) -> float:
        """What hypotheses are ranked by."""
        if self.length_penalty is None:
            return sum_logprob / max(1, num_tokens)
        return sum_logprob / float(((5 + num_tokens) / 6) ** self.length_penalty)


@dataclass(kw_only=True)
class Hypotheses:
    """The hypotheses of one window: those that go on, likeliest first, and those that ended.

    Each is its tokens and the sum of their log-probabilities.
    """

    task: Task
    beams: Beams
    no_speech_prob: float
    num_positions: int
    live: list[tuple[list[int], float]] = field(default_factory=lambda: [([], 0.0)])
    ended: list[tuple[list[int], float]] = field(default_factory=list)
    num_tokens: int = 0

    @property
    def length(self) -> int:
        return len(self.task.prompt) + self.num_tokens

    @property
    def size(self) -> int:
        return 1 if self.task.temperature > 0 else self.beams.size

    @property
    def is_finished(self) -> bool:
        enough = max(1, round(self.size * self.beams.patience))
        return len(self.ended) >= enough or not self.live or self.num_tokens == self.task.max_new_tokens

    def take(self, candidates: Sequence[tuple[float, float, float]], end: int) -> None:
        """Extends the hypotheses. candidates: token, hypothesis and sum of each, likeliest first."""
        before, self.live = self.live, []
        self.num_tokens += 1
        for token, parent, total in candidates:
            if total == NEVER or len(self.live) == self.beams.size:
                break
            tokens = before[int(parent)][0]
            if token == end:
                self.ended.append((tokens, total))
            else:
                self.live.append(([*tokens, int(token)], total))

    def best(self) -> Decoding:
        """The one that wins; those that have not ended stand in where too few have."""
        missing = max(0, self.size - len(self.ended))
        ranked = [(tokens, total, True) for tokens, total in self.ended]
        ranked += [(tokens, total, False) for tokens, total in self.live[:missing]]
        tokens, total, ended = max(ranked, key=lambda one: self.beams.score(len(one[0]), one[1]))
        return Decoding(
            task=self.task,
            no_speech_prob=self.no_speech_prob,
            num_positions=self.num_positions,
            tokens=tokens,
            sum_logprob=total,
            ended=ended,
        )


class BeamSlots:
    """As `Slots`, for `size` windows of `beams.size` hypotheses each.

    The rows of caches and tokens are the hypotheses, those of a window side by side.
    """

    def __init__(
        self,
        model: Model,
        rules: Rules,
        *,
        size: int,
        num_positions: int | None,
        beams: Beams,
        memory_dtype: MemoryDtype = "same",
    ) -> None:
        device, max_tokens = model.device, model.shape.target_positions
        self._model, self._decoder, self._rules = model, model.decoder, rules
        self._end, self._beams = model.vocabulary.end, beams
        self._caches = SlotCaches(
            model,
            size,
            num_positions,
            width=beams.size,
            memory_dtype=memory_dtype,
        )
        self.num_positions = num_positions
        rows = size * beams.size
        self._tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self._positions = torch.zeros(rows, dtype=torch.long, device=device)
        self._history = History.create(rows, device)
        self._sums = torch.zeros(size, beams.size, device=device)
        self._temperature = torch.zeros(size, device=device)
        self._draws = torch.zeros(size, max_tokens, device=device)
        self._graphs = step_graphs(device)
        self._slots: list[Hypotheses | None] = [None] * size

    @property
    def size(self) -> int:
        return len(self._slots)

    @property
    def live(self) -> list[Hypotheses]:
        """The windows that decode now."""
        return [slot for slot in self._slots if slot is not None]

    @property
    def num_free(self) -> int:
        return self._slots.count(None)

    def load(self, hidden: Sequence[Tensor]) -> Tensor:
        """Writes encoder outputs, [positions, dim] each, into free slots; returns their numbers."""
        free = [number for number, slot in enumerate(self._slots) if slot is None][: len(hidden)]
        slots = torch.tensor(free, device=self._tokens.device)
        self._caches.memory.write(slots, self._decoder, hidden)
        return slots

    def detect_languages(self, slots: Tensor) -> list[tuple[str, float]]:
        """The likeliest language of the windows in loaded slots, and its probability among all."""
        return likeliest_languages(self._model, self._caches.prefill(slots), len(slots))

    def start(self, slots: Tensor, tasks: Sequence[Task]) -> list[Decoding]:
        """Decodes the first token of the windows in loaded slots; returns those that finished with it."""
        out, lengths = read_prompts(self._model, self._caches, slots, tasks)
        silences = no_speech_probs(self._model, out, [task.start for task in tasks])
        for number, task, silence in zip(slots.tolist(), tasks, silences, strict=True):
            self._slots[number] = Hypotheses(
                task=task,
                beams=self._beams,
                no_speech_prob=silence,
                num_positions=self._caches.memory.num_positions(number),
            )
        self._temperature[slots] = torch.tensor([task.temperature for task in tasks], device=slots.device)
        self._draws[slots] = uniform_draws(tasks, self._draws.shape[1]).to(slots.device)
        rows = self._rows(slots)
        self._positions[rows] = lengths.repeat_interleave(self._beams.size)
        firsts = torch.arange(len(tasks), device=slots.device)
        logits = self._decoder.logits(out[firsts, lengths - 1])
        history = History.create(len(tasks), slots.device)
        self._rules.restrict(logits, history, first=True)
        found = self._candidates(logits[:, None], torch.zeros_like(firsts[:, None], dtype=torch.float32),
                                 slots, lengths, is_drawn=self._is_drawn)  # fmt: skip
        self._caches.spread(slots)
        repeated = history.select(firsts.repeat_interleave(self._beams.size))
        self._tokens[rows], self._sums[slots], _ = self._follow(found)
        self._rules.record(self._tokens[rows], repeated, first=True)
        self._history.write(rows, repeated)
        return self._take(slots.tolist(), found)

    def step(self) -> list[Decoding]:
        """Decodes one token in every slot; returns the windows that finished with it."""
        longest, most = max(slot.length for slot in self.live), self._draws.shape[1]
        is_drawn = self._is_drawn
        if self._graphs is None:
            found = self._advance(padded_keys(longest, most, PLAIN_KEY_STEP), is_drawn=is_drawn)
        else:
            num_keys = padded_keys(longest, most)
            found = self._graphs.run((num_keys, is_drawn), lambda: self._advance(num_keys, is_drawn=is_drawn))
        return self._take(range(self.size), found)

    def resize(self, size: int) -> None:
        """Makes it `size` slots, the live ones first; costs one copy of the caches."""
        keep = [number for number, slot in enumerate(self._slots) if slot is not None]
        free = [number for number, slot in enumerate(self._slots) if slot is None]
        assert size >= len(keep)
        keep += (free + [0] * size)[: size - len(keep)]  # new slots are copies, whose content is overwritten
        slots = torch.tensor(keep, device=self._tokens.device)
        rows = self._rows(slots)
        self._caches = self._caches.select(slots)
        self._tokens, self._positions = self._tokens[rows], self._positions[rows]
        self._history, self._sums = self._history.select(rows), self._sums[slots]
        self._temperature, self._draws = self._temperature[slots], self._draws[slots]
        self._slots = [*self.live, *[None] * (size - len(self.live))]
        self._graphs = step_graphs(slots.device)  # all tensors are new

    def _advance(self, num_keys: int, *, is_drawn: bool) -> Tensor:
        """One step on the device: what `_candidates` gives."""
        cache = self._caches.step(self._positions, num_keys)
        out = self._decoder(self._tokens[:, None], self._positions[:, None], cache)
        self._positions.add_(1).clamp_(max=self._draws.shape[1] - 1)  # a free slot idles at its end
        logits = self._decoder.logits(out[:, 0])
        self._rules.restrict(logits, self._history, first=False)
        slots = torch.arange(self.size, device=logits.device)
        positions = self._positions.view(self.size, -1)[:, 0]
        found = self._candidates(
            logits.view(self.size, self._beams.size, -1), self._sums, slots, positions, is_drawn=is_drawn
        )
        tokens, sums, parents = self._follow(found)
        rows = (slots[:, None] * self._beams.size + parents).flatten()
        self._caches.reorder(rows, num_keys)
        self._history.reorder(rows)
        self._tokens.copy_(tokens)
        self._sums.copy_(sums)
        self._rules.record(self._tokens, self._history, first=False)
        return found

    def _candidates(
        self, logits: Tensor, sums: Tensor, slots: Tensor, positions: Tensor, *, is_drawn: bool
    ) -> Tensor:
        """The likeliest ways to go on, likeliest first: float64 [3, windows, 2 * beams.size].

        These are token, hypothesis and sum of log-probabilities. logits: [windows, hypotheses, vocabulary].
        sums: [windows, hypotheses]. positions: of the next token, int64 [windows].
        """
        logprobs = logits.log_softmax(-1)
        if is_drawn:
            temperature, draws = self._temperature[slots], self._draws[slots, positions]
            drawn = draw_tokens(logits[:, 0], temperature, draws)[:, None]
            only = torch.full_like(logprobs, NEVER)
            only[:, 0].scatter_(1, drawn, logprobs[:, 0].gather(1, drawn))
            logprobs = torch.where((temperature > 0)[:, None, None], only, logprobs)
        totals = (sums[:, :, None] + logprobs).flatten(1)
        best = totals.topk(2 * self._beams.size)  # at most half of them are ends
        size = logits.shape[-1]
        return torch.stack([best.indices % size, best.indices // size, best.values.double()])

    def _follow(self, found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [windows * beams.size], sums and parents [windows, beams.size] of those that go on."""
        tokens, parents = found[0].long(), found[1].long()
        order = (tokens == self._end).long().argsort(dim=1, stable=True)[:, : self._beams.size]
        chosen = (values.gather(1, order) for values in (tokens, found[2].float(), parents))
        tokens, sums, parents = chosen
        return tokens.flatten(), sums, parents

    def _rows(self, slots: Tensor) -> Tensor:
        """The rows of the hypotheses of some slots."""
        within = torch.arange(self._beams.size, device=slots.device)
        return (slots[:, None] * self._beams.size + within).flatten()

    @property
    def _is_drawn(self) -> bool:
        return any(slot.task.temperature > 0 for slot in self.live)

    def _take(self, numbers: Sequence[int], found: Tensor) -> list[Decoding]:
        """Records the candidates of some slots; returns the windows that finished with them."""
        for number, candidates in zip(numbers, found.permute(1, 2, 0).tolist(), strict=True):
            slot = self._slots[number]
            if slot is not None:
                slot.take(candidates, self._end)
        finished = []
        for number, slot in enumerate(self._slots):
            if slot is not None and slot.is_finished:
                self._caches.memory.free(number)
                finished.append(slot.best())
        self._slots = [None if slot is None or slot.is_finished else slot for slot in self._slots]
        return finished
