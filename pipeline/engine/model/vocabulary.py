"""A model's special ids and its text codec; every id comes from the generation config or the tokeniser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from pipeline.engine.model.snapshot import ModelNotFound, Snapshot


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Ids of one model.

    languages: code to id, empty for an English-only model. tasks: task to id, likewise.
    suppress, begin_suppress: ids never sampled, and those not sampled first.
    max_initial_timestamp: largest index of the first timestamp, None for no limit.
    max_length: most tokens after the prompt that the generation config allows, None for no limit.
    """

    tokenizer: Tokenizer
    size: int
    start: int
    end: int
    previous: int | None
    no_timestamps: int
    languages: dict[str, int]
    tasks: dict[str, int]
    suppress: tuple[int, ...]
    begin_suppress: tuple[int, ...]
    max_initial_timestamp: int | None
    max_length: int | None

    @property
    def is_multilingual(self) -> bool:
        return bool(self.languages)

    @property
    def no_speech(self) -> int:
        """`<|nospeech|>` sits before `<|notimestamps|>` in every Whisper vocabulary."""
        return self.no_timestamps - 1

    @property
    def first_timestamp(self) -> int:
        return self.no_timestamps + 1

    @cached_property
    def language_codes(self) -> tuple[str, ...]:
        return tuple(self.languages) if self.languages else ("en",)

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(self.tasks) if self.tasks else ("transcribe",)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of the text tokens; special tokens and timestamps are left out."""
        return self.tokenizer.decode([t for t in tokens if t < self.end], skip_special_tokens=False)

    def encode_prompt(self, text: str, max_tokens: int) -> list[int]:
        """`<|startofprev|>` and the last tokens of the text, at most max_tokens in all."""
        if self.previous is None:
            raise ValueError("initial_prompt cannot be used: the model's tokeniser has no <|startofprev|>")
        tokens = self.tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids
        return [self.previous, *tokens[-(max_tokens - 1) :]]

    def start_sequence(self, language: str | None, task: str, *, timestamps: bool) -> list[int]:
        """Start, language and task (multilingual models), and `<|notimestamps|>` where none are wanted."""
        sequence = [self.start]
        if self.languages:
            assert language is not None
            sequence += [self.languages[language], self.tasks[task]]
        return sequence if timestamps else [*sequence, self.no_timestamps]


def read_vocabulary(snapshot: Snapshot) -> Vocabulary:
    """Raises ModelNotFound when the tokeniser or an id that decoding needs is missing."""
    tokenizer = _read_tokenizer(snapshot)
    config = {**snapshot.config, **snapshot.generation}

    def special(key: str, token: str) -> int:
        value = config.get(key)
        value = tokenizer.token_to_id(token) if value is None else value
        if value is None:
            raise ModelNotFound(f"{snapshot.folder} names no {token} in generation config or tokeniser")
        return value[0] if isinstance(value, list) else value

    languages, tasks = _languages_and_tasks(config, tokenizer)
    size = snapshot.config["vocab_size"]
    return Vocabulary(
        tokenizer=tokenizer,
        size=size,
        start=special("decoder_start_token_id", "<|startoftranscript|>"),
        end=special("eos_token_id", "<|endoftext|>"),
        previous=config.get("prev_sot_token_id", tokenizer.token_to_id("<|startofprev|>")),
        no_timestamps=special("no_timestamps_token_id", "<|notimestamps|>"),
        languages=languages,
        tasks=tasks,
        suppress=_ids(config.get("suppress_tokens"), size),
        begin_suppress=_ids(config.get("begin_suppress_tokens"), size),
        max_initial_timestamp=config.get("max_initial_timestamp_index"),
        max_length=snapshot.generation.get("max_length"),
    )


def _languages_and_tasks(
    config: dict[str, Any], tokenizer: Tokenizer
) -> tuple[dict[str, int], dict[str, int]]:
    if config.get("is_multilingual") is False:
        return {}, {}
    languages = {token.strip("<|>"): number for token, number in (config.get("lang_to_id") or {}).items()}
    tasks = dict(config.get("task_to_id") or {})
    for task in ("transcribe", "translate"):
        number = tokenizer.token_to_id(f"<|{task}|>")
        if task not in tasks and number is not None:
            tasks[task] = number
    return languages, tasks


def _ids(tokens: list[int] | None, size: int) -> tuple[int, ...]:
    return tuple(sorted({token for token in tokens or [] if 0 <= token < size}))


def _read_tokenizer(snapshot: Snapshot) -> Tokenizer:
    path = snapshot.folder / "tokenizer.json"
    if path.is_file():
        return Tokenizer.from_file(str(path))
    if (snapshot.folder / "vocab.json").is_file():  # models saved before tokenizer.json was customary
        from transformers import WhisperTokenizer

        return WhisperTokenizer.from_pretrained(snapshot.folder).backend_tokenizer
    raise ModelNotFound(f"{snapshot.folder} has neither tokenizer.json nor vocab.json")
