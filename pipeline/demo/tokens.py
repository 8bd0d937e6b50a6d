"""The tokeniser: byte-level BPE over the language's words, Whisper's special tokens, 1501 timestamps.

The order of the ids is Whisper's: text, <|endoftext|>, the other special tokens, then the timestamps, which
are added tokens but not special ones, as in OpenAI's checkpoints.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import LANGUAGES as WHISPER_LANGUAGES

from pipeline.demo.text import LANGUAGES, load_grammar, sample_sentence

NUM_TEXT_TOKENS = 2400
NUM_TIMESTAMPS = 1501
TIMESTAMP_STEP_S = 0.02

_END = "<|endoftext|>"
_TASKS = (
    "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
_SPECIAL = (_END, "<|startoftranscript|>", *(f"<|{code}|>" for code in WHISPER_LANGUAGES), *_TASKS)
_SAMPLE_SIZE = 20_000  # sentences a language: enough for the frequent syllables of open names


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Token ids by role. `first_timestamp + n` stands for n x 0.02 s."""

    size: int
    blank: int
    end: int
    start: int
    languages: dict[str, int]
    translate: int
    transcribe: int
    start_of_previous: int
    no_speech: int
    no_timestamps: int
    first_timestamp: int
    special: tuple[int, ...]


def train_tokenizer() -> WhisperTokenizer:
    """The tokeniser of the bundled model; the same on every run."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TEXT_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_sample_text(), trainer)
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _SPECIAL])
    backend.add_tokens(
        [
            AddedToken(f"<|{n * TIMESTAMP_STEP_S:.2f}|>", normalized=False, special=False)
            for n in range(NUM_TIMESTAMPS)
        ]
    )
    return WhisperTokenizer(tokenizer_object=backend, pad_token=_END, extra_special_tokens=list(_SPECIAL[1:]))


def vocabulary_of(tokenizer: WhisperTokenizer) -> Vocabulary:
    """The ids of `tokenizer` by role."""
    ids = tokenizer.convert_tokens_to_ids
    return Vocabulary(
        size=len(tokenizer),
        blank=ids("Ġ"),
        end=ids(_END),
        start=ids("<|startoftranscript|>"),
        languages={language: ids(f"<|{language}|>") for language in LANGUAGES},
        translate=ids("<|translate|>"),
        transcribe=ids("<|transcribe|>"),
        start_of_previous=ids("<|startofprev|>"),
        no_speech=ids("<|nospeech|>"),
        no_timestamps=ids("<|notimestamps|>"),
        first_timestamp=ids("<|0.00|>"),
        special=tuple(ids(token) for token in _SPECIAL),
    )


def _sample_text() -> Iterator[str]:
    rng = random.Random(0)
    for language in LANGUAGES:
        for word in load_grammar(language).vocabulary:
            yield " ".join(["", *[word] * 20])
        for _ in range(_SAMPLE_SIZE):
            yield " " + sample_sentence(rng, language, "train")
