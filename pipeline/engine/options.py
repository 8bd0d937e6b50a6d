"""What a caller may ask of the engine, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.engine.sparsify.level import MAX_SPARSITY
from pipeline.engine.sparsify.selectors import SELECTORS

TASKS = ("transcribe", "translate")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How windows are decoded.

    task: `transcribe` keeps the language, `translate` writes English (multilingual models only).
    initial_prompt: text put before every window as if it had been said before; at most half the decoder's
        context of it is used, the end of it.
    timestamps: decode with timestamp tokens, so that a window falls into segments.
    word_timestamps: find the time of every word, by one more pass over the text of each window.
    sparsity: share of encoder positions dropped after layer `sparsify_layer` (1-based), 0 to 0.95.
    selector: the rule that picks the kept positions, a name in `sparsify.SELECTORS`.
    max_new_tokens: most tokens per window; None is what generation config and decoder positions allow.
    batch_size: windows decoded side by side; `auto` sizes it from the device.

    Raises ValueError naming the field and what it may be.
    """

    task: str = "transcribe"
    initial_prompt: str | None = None
    timestamps: bool = True
    word_timestamps: bool = False
    sparsity: float = 0.0
    sparsify_layer: int = 2
    selector: str = "attention"
    max_new_tokens: int | None = None
    batch_size: int | Literal["auto"] = 8

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task is {self.task!r}; it may be {' or '.join(TASKS)}")
        if not 0.0 <= self.sparsity <= MAX_SPARSITY:
            raise ValueError(f"sparsity is {self.sparsity!r}; it may be 0 to {MAX_SPARSITY}")
        if self.sparsify_layer < 1:
            raise ValueError(f"sparsify_layer is {self.sparsify_layer!r}; it may be 1 or more")
        if self.selector not in SELECTORS:
            raise ValueError(f"selector is {self.selector!r}; it may be {', '.join(SELECTORS)}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens!r}; it may be None or 1 or more")
        if self.batch_size != "auto" and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            raise ValueError(f"batch_size is {self.batch_size!r}; it may be 'auto' or 1 or more")
