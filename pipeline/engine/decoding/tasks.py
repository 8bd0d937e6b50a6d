"""A window to decode, and what was decoded of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from pipeline.engine.decoding.loops import ends_in_loop

LOOP_CHECK = 8  # tokens between two looks for a loop


@dataclass(frozen=True, kw_only=True)
class Task:
    """One window to decode.

    index: the caller's name for it. prompt: ids before the first new token, and prompt[start] is
    `<|startoftranscript|>`. temperature: 0 for greedy, else tokens are drawn from `seed`. max_loop: tokens of
    one phrase over and over at which it is given up; None: it never is. Beams go on.
    """

    index: int
    prompt: tuple[int, ...]
    start: int
    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    max_loop: int | None = None


@dataclass(kw_only=True)
class Decoding:
    """What a slot has decoded so far.

    num_positions: encoder positions it looks at. ended: whether the end token came. is_lost: whether it was
    given up in a loop.
    kept: which of the encoder's positions these are, ascending int64 [num_positions], None for all.
    hidden: what it looks at, where the pass keeps that, [num_positions, dim].
    queries: what the last token of its prompt and each of its own asked of that in the heads that are
    listened to, by layer, [heads, tokens + 1, head_dim].
    """

    task: Task
    no_speech_prob: float
    num_positions: int
    tokens: list[int] = field(default_factory=list)
    sum_logprob: float = 0.0
    ended: bool = False
    is_lost: bool = False
    kept: Tensor | None = None
    hidden: Tensor | None = None
    queries: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return len(self.task.prompt) + len(self.tokens)

    @property
    def num_left(self) -> int:
        """Tokens that it may still decode."""
        return 0 if self.ended or self.is_lost else self.task.max_new_tokens - len(self.tokens)

    @property
    def is_finished(self) -> bool:
        return self.num_left == 0

    @property
    def avg_logprob(self) -> float:
        """Mean log-probability of the tokens and the end token, as in openai-whisper."""
        return self.sum_logprob / (len(self.tokens) + 1)

    def take(self, token: int, logprob: float, end: int) -> None:
        self.sum_logprob += logprob
        if token == end:
            self.ended = True
        else:
            self.tokens.append(token)
            limit = self.task.max_loop
            if limit is not None and len(self.tokens) % LOOP_CHECK == 0:
                self.is_lost = ends_in_loop(self.tokens, limit)
