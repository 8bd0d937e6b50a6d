"""A model's special ids and its text codec; every id comes from the generation config or the tokeniser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from typing import Any

from tokenizers import Tokenizer

from pipeline.engine.model.snapshot import NUM_TIMES, ModelNotFound, Snapshot
from pipeline.engine.options import TASKS

LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
# `<|endoftext|>` follows GPT-2's 50256 tokens in English-only models; the text of the others is one longer.
END_OF_ENGLISH = 50256


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

    @property
    def last_timestamp(self) -> int:
        """What follows it was added to the model later, and is text."""
        return min(self.first_timestamp + NUM_TIMES, self.size) - 1

    def is_text(self, token: int) -> bool:
        """Whether a token is neither special nor a timestamp."""
        return token < self.end or token > self.last_timestamp

    def is_time(self, token: int) -> bool:
        """Whether a token is a timestamp."""
        return self.first_timestamp <= token <= self.last_timestamp

    @cached_property
    def language_codes(self) -> tuple[str, ...]:
        return tuple(self.languages) if self.languages else ("en",)

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(self.tasks) if self.tasks else ("transcribe",)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of the text tokens; special tokens and timestamps are left out."""
        return self.tokenizer.decode([t for t in tokens if self.is_text(t)], skip_special_tokens=False)

    def encode_prompt(self, text: str, max_tokens: int, *, hotwords: str = "") -> list[int]:
        """`<|startofprev|>`, the first tokens of the hotwords, the last of the text: at most max_tokens."""
        if self.previous is None:
            raise ValueError("initial_prompt cannot be used: the model's tokeniser has no <|startofprev|>")
        hot = self._encode(hotwords)[: max_tokens - 1]
        room = max_tokens - 1 - len(hot)
        return [self.previous, *hot, *(self._encode(text)[-room:] if room else [])]

    def _encode(self, text: str) -> list[int]:
        spoken = text.strip()
        return self.tokenizer.encode(f" {spoken}", add_special_tokens=False).ids if spoken else []

    def start_sequence(self, language: str | None, task: str, *, timestamps: bool) -> list[int]:
        """Start, language and task (multilingual models), and `<|notimestamps|>` where none are wanted."""
        sequence = [self.start]
        if self.languages:
            assert language is not None
            sequence += [self.languages[language], self.tasks[task]]
        return sequence if timestamps else [*sequence, self.no_timestamps]


def read_vocabulary(snapshot: Snapshot) -> Vocabulary:
    """Ids from the generation config, else config.json, else the tokeniser.

    Raises ModelNotFound when the tokeniser or an id that decoding needs is missing.
    """
    tokenizer = _read_tokenizer(snapshot)
    stored = [*snapshot.config.items(), *snapshot.generation.items()]
    config = {key: value for key, value in stored if value is not None}
    config |= config.get("task_to_id", {})

    def special(key: str, token: str) -> int:
        value = config.get(key)
        value = tokenizer.token_to_id(token) if value is None else value
        if value is None:
            raise ModelNotFound(f"{snapshot.tokeniser} names no {token} in generation config or tokeniser")
        return value[0] if isinstance(value, list) else value

    end, size = special("eos_token_id", "<|endoftext|>"), snapshot.config["vocab_size"]
    is_multilingual = config.get("is_multilingual", "lang_to_id" in config or end != END_OF_ENGLISH)
    languages = _languages(config, tokenizer) if is_multilingual else {}
    vocabulary = Vocabulary(
        tokenizer=tokenizer,
        size=size,
        start=special("decoder_start_token_id", "<|startoftranscript|>"),
        end=end,
        previous=config.get("prev_sot_token_id", tokenizer.token_to_id("<|startofprev|>")),
        no_timestamps=special("no_timestamps_token_id", "<|notimestamps|>"),
        languages=languages,
        tasks={task: special(task, f"<|{task}|>") for task in TASKS} if languages else {},
        suppress=_ids(config.get("suppress_tokens"), size),
        begin_suppress=_ids(config.get("begin_suppress_tokens"), size),
        max_initial_timestamp=config.get("max_initial_timestamp_index"),
        max_length=snapshot.generation.get("max_length"),
    )
    unknown = [n for n in range(vocabulary.last_timestamp + 1, size) if tokenizer.id_to_token(n) is None]
    return replace(vocabulary, suppress=(*vocabulary.suppress, *unknown))


def _languages(config: dict[str, Any], tokenizer: Tokenizer) -> dict[str, int]:
    """Codes and ids; without a list in the config, in the order of the ids, the tokeniser's `<|xx|>`."""
    vocabulary = tokenizer.get_vocab()
    start, task = (vocabulary.get(f"<|{name}|>", -1) for name in ("startoftranscript", "translate"))
    told = {token: n for token, n in vocabulary.items() if start < n < task and LANGUAGE.fullmatch(token)}
    named = config.get("lang_to_id") or dict(sorted(told.items(), key=itemgetter(1)))
    return {token.strip("<|>"): number for token, number in named.items()}


def _ids(tokens: list[int] | None, size: int) -> tuple[int, ...]:
    return tuple(sorted({token for token in tokens or [] if 0 <= token < size}))


def _read_tokenizer(snapshot: Snapshot) -> Tokenizer:
    path = snapshot.tokeniser / "tokenizer.json"
    if path.is_file():
        return Tokenizer.from_file(str(path))
    if (snapshot.tokeniser / "vocab.json").is_file():  # models saved before tokenizer.json was customary
        from transformers import WhisperTokenizer

        return WhisperTokenizer.from_pretrained(snapshot.tokeniser).backend_tokenizer
    raise ModelNotFound(f"{snapshot.tokeniser} has neither tokenizer.json nor vocab.json")
