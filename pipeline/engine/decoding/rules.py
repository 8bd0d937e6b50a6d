"""Which token may come next: suppressed ids, then Whisper's timestamp rules, then greedy choice or a draw.

Equal to transformers' SuppressTokens and WhisperTimeStampLogitsProcessor (openai/whisper decoding.py,
ApplyTimestampRules), without a look at the host: what is known of every row is a handful of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engine.model.vocabulary import Vocabulary

NEVER = float("-inf")


@dataclass(frozen=True, kw_only=True)
class History:
    """What the timestamp rules remember of each row; tensors [rows], changed in place.

    last_is_time, previous_is_time: whether the last two tokens were timestamps, where a missing one before
    the last counts as one. last_time: the last timestamp's id, 0 before the first.
    """

    last_is_time: Tensor
    previous_is_time: Tensor
    last_time: Tensor

    @classmethod
    def create(cls, num_rows: int, device: torch.device) -> History:
        return cls(
            last_is_time=torch.zeros(num_rows, dtype=torch.bool, device=device),
            previous_is_time=torch.ones(num_rows, dtype=torch.bool, device=device),
            last_time=torch.zeros(num_rows, dtype=torch.long, device=device),
        )

    def select(self, rows: Tensor) -> History:
        """A copy of some rows."""
        return History(**{name: value[rows] for name, value in vars(self).items()})

    def reorder(self, rows: Tensor) -> None:
        """Every row becomes a copy of the one that is named in its place."""
        for value in vars(self).values():
            value.copy_(value[rows])

    def write(self, rows: Tensor, other: History) -> None:
        """Overwrites some rows with those of another history."""
        for name, value in vars(self).items():
            value[rows] = getattr(other, name)


class Rules:
    """Chooses the next token of every row from its logits, under one model's rules."""

    def __init__(self, vocabulary: Vocabulary, device: torch.device, *, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._end = vocabulary.end
        self._first_time = vocabulary.first_timestamp
        self._max_initial = vocabulary.max_initial_timestamp
        never = {*vocabulary.suppress, *([vocabulary.no_timestamps] if timestamps else [])}
        self._never = torch.tensor(sorted(never), dtype=torch.long, device=device)
        self._never_first = torch.tensor(vocabulary.begin_suppress, dtype=torch.long, device=device)
        self._after_times = vocabulary.last_timestamp + 1
        self._times = torch.arange(self._first_time, self._after_times, device=device)

    def choose(
        self, logits: Tensor, history: History, *, first: bool, temperature: Tensor | None, draw: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The next token of each row and its log-probability under the rules, int64 and float32 [rows].

        logits: float32 [rows, vocabulary], overwritten. first: these are the rows' first tokens.
        temperature: float32 [rows], 0 for greedy; None when all are. draw: uniform in 0..1, [rows].
        The history is brought up to date.
        """
        self.restrict(logits, history, first=first)
        tokens = logits.argmax(-1)
        if temperature is not None:
            tokens = torch.where(temperature > 0, draw_tokens(logits, temperature, draw), tokens)
        logprobs = logits.gather(1, tokens[:, None]).squeeze(1) - logits.logsumexp(-1)
        self.record(tokens, history, first=first)
        return tokens, logprobs

    def restrict(self, logits: Tensor, history: History, *, first: bool) -> None:
        """Sets the logits of forbidden tokens to -inf, in place."""
        logits.index_fill_(1, self._never, NEVER)
        if first:
            logits.index_fill_(1, self._never_first, NEVER)
        if self._timestamps:
            self._restrict_times(logits, history, first=first)

    def _restrict_times(self, logits: Tensor, history: History, *, first: bool) -> None:
        text, times, added = logits.tensor_split([self._first_time, self._after_times], dim=1)
        if first:
            text.fill_(NEVER)
            added.fill_(NEVER)
            if self._max_initial is not None:
                times[:, self._max_initial + 1 :].fill_(NEVER)
            return
        last, previous = history.last_is_time, history.previous_is_time
        closed = last & ~previous  # a timestamp closed a text: its pair or the end must follow
        text[:, : self._end].add_(_penalty(closed))
        added.add_(_penalty(closed))
        # Times never decrease, and only a pair repeats one.
        earliest = history.last_time + (~closed).long()
        times.masked_fill_((self._times < earliest[:, None]) | (last & previous)[:, None], NEVER)
        # If the timestamps together are likelier than any one other token, a timestamp it is.
        best = text.amax(-1)
        if added.shape[1]:
            best = torch.maximum(best, added.amax(-1))
        prefers_time = _penalty(times.logsumexp(-1) > best)
        text.add_(prefers_time)
        added.add_(prefers_time)

    def record(self, tokens: Tensor, history: History, *, first: bool) -> None:
        """Brings the history up to date with the tokens that were chosen, int64 [rows]."""
        if not self._timestamps:
            return
        is_time = (tokens >= self._first_time) & (tokens < self._after_times)
        if not first:
            history.previous_is_time.copy_(history.last_is_time)
        history.last_is_time.copy_(is_time)
        history.last_time.copy_(torch.where(is_time, tokens, history.last_time))


def _penalty(forbidden: Tensor) -> Tensor:
    """-inf for the forbidden rows, to be added; adding it is four times as fast as a masked fill on a CPU.

    Nothing comes from the host here, or a CUDA graph could not hold it.
    """
    zeros = torch.zeros(forbidden.shape, dtype=torch.float32, device=forbidden.device)
    return zeros.masked_fill_(forbidden, NEVER)[:, None]


def draw_tokens(logits: Tensor, temperature: Tensor, draw: Tensor) -> Tensor:
    """Samples each row by inverting its cumulative distribution at `draw`."""
    scaled = logits / temperature.clamp(min=1e-4)[:, None]
    cumulative = scaled.softmax(-1).cumsum(-1)
    place = torch.searchsorted(cumulative, (draw * cumulative[:, -1])[:, None], right=True).squeeze(1)
    return place.clamp_(max=logits.shape[1] - 1)
