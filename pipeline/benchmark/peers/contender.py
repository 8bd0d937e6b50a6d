"""What the engine and its peers share: a setting, and tokens out of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from pipeline.engine.model.snapshot import resolve


class Contender(Protocol):
    """Decodes greedily; the tokens of each window come without prompt and end token."""

    def features(self, samples: Sequence[np.ndarray]) -> Tensor:
        """Its own features, float32 [batch, num_mels, frames], of windows of float32 [480000] at 16 kHz."""
        ...

    def __call__(self, mel: Tensor) -> list[list[int]]:
        """Tokens of features, float32 [batch, num_mels, frames]."""
        ...


@dataclass(frozen=True)
class CaseSetup:
    """What all contenders of a case share. num_tokens: the most that a window may have."""

    folder: Path
    num_tokens: int
    batch_size: int
    threads: int
    device: str = "cpu"

    @cached_property
    def prompt(self) -> tuple[int, ...]:
        """Start, English, transcribe, no timestamps."""
        ids = resolve(self.folder).generation
        languages, tasks = ids["lang_to_id"], ids["task_to_id"]
        names = (languages["<|en|>"], tasks["transcribe"], ids["no_timestamps_token_id"])
        return ids["decoder_start_token_id"], *names

    @cached_property
    def end(self) -> int:
        """The end token."""
        return resolve(self.folder).generation["eos_token_id"]


def new_tokens(row: list[int], setting: CaseSetup) -> list[int]:
    """What was decoded: a row of ids without its prompt, up to its end token or padding."""
    prompt = list(setting.prompt)
    tokens = row[len(prompt) :] if row[: len(prompt)] == prompt else row
    return tokens[: tokens.index(setting.end)] if setting.end in tokens else tokens
