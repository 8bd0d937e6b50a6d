"""What a caller may ask of the engine, checked once; without torch, so that a driver can check it too."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

TASKS = ("transcribe", "translate")
LANGUAGE_MODES = ("auto", "each")  # a language is read from each recording, or from each window
Timestamps = Literal["alignment", "tokens", "none"]
MemoryDtype = Literal["same", "int8"]
DTYPES = ("bfloat16", "float16", "float32", "int8")
SELECTORS = (
    "attention",
    "attention-max",
    "attention-min",
    "attention-median",
    "attention-max-query",
    "stride",
    "random",
    "energy",
    "trim",
)
OFFERED = ("attention", "stride", "trim")  # of SELECTORS, those worth transcribing with
MAX_SPARSITY = 0.95
MAX_BEAMS = 32
DEFAULT_LAYER = 2
DEFAULT_SELECTOR = "attention"  # the paper's


class WrongValue(ValueError):
    """A field has a value that it may not have: `field is value; it may be allowed`."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(field, value, allowed)
        self.field, self.value, self.allowed = field, value, allowed

    def __str__(self) -> str:
        return f"{self.field} is {self.value!r}; it may be {self.allowed}"


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raises WrongValue unless the condition holds."""
    if not condition:
        raise WrongValue(field, value, allowed)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How windows are decoded.

    task: `transcribe` keeps the language, `translate` writes English (multilingual models only).
    initial_prompt: text put before every window as if it had been said before; at most half the decoder's
        context of it is used, the end of it.
    timestamps: how a window falls into segments. `alignment`: one more pass over its text finds the time of
        every word, and segments are sentences or phrases. `tokens`: timestamp tokens are decoded with the
        text. `none`: the window is one segment.
    word_timestamps: segments hold their words, with the time of each.
    hotwords: words to expect, put before every window and before its prompt.
    condition_on_previous_text: who transcribes recordings is to put before each window what was said before
        it; the engine itself only says so (`Engine.conditions_on_text`).
    beam_size: hypotheses of a window side by side (beam search), 1 for greedy decoding.
    patience, length_penalty: of beam search, as in openai/whisper; None is 1, and the mean log-probability.
    sparsity: share of encoder positions dropped after layer `sparsify_layer` (1-based), 0 to 0.95.
    selector: the rule that picks the kept positions, a name in `SELECTORS`.
    memory_dtype: of the keys and values of encoder positions, which are read for every token: `same` as the
        model's, or `int8` with a scale for each head and position, half as much to read. Meant for GPUs,
        where a kernel reads them; elsewhere they are widened first, which saves memory and costs time.
    max_new_tokens: most tokens per window; None is what generation config and decoder positions allow.
    batch_size: windows decoded side by side in a lane; `auto` sizes it from the device.
    lanes: batches that are worked on beside each other, each with its share of torch's threads; `auto` is one
        for each thread up to four on a CPU, and one on a GPU, where there may be no more. One window alone is
        done sooner with one lane, many are done sooner with several.

    Raises WrongValue, a ValueError that names the field and what it may be.
    """

    task: str = "transcribe"
    initial_prompt: str | None = None
    timestamps: Timestamps = "alignment"
    word_timestamps: bool = False
    hotwords: str | None = None
    condition_on_previous_text: bool = False
    beam_size: int = 1
    patience: float | None = None
    length_penalty: float | None = None
    sparsity: float = 0.0
    sparsify_layer: int = DEFAULT_LAYER
    selector: str = DEFAULT_SELECTOR
    memory_dtype: MemoryDtype = "same"
    max_new_tokens: int | None = None
    batch_size: int | Literal["auto"] = "auto"
    lanes: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        require(self.task in TASKS, "task", self.task, " or ".join(TASKS))
        kinds = get_args(Timestamps)
        require(self.timestamps in kinds, "timestamps", self.timestamps, " or ".join(kinds))
        require(0.0 <= self.sparsity <= MAX_SPARSITY, "sparsity", self.sparsity, f"0 to {MAX_SPARSITY}")
        require(self.sparsify_layer >= 1, "sparsify_layer", self.sparsify_layer, "1 or more")
        require(self.selector in SELECTORS, "selector", self.selector, ", ".join(SELECTORS))
        types = get_args(MemoryDtype)
        require(self.memory_dtype in types, "memory_dtype", self.memory_dtype, " or ".join(types))
        check_beams(self.beam_size, self.patience, self.length_penalty)
        limit = self.max_new_tokens
        require(limit is None or limit >= 1, "max_new_tokens", limit, "None or 1 or more")
        for name, number in (("batch_size", self.batch_size), ("lanes", self.lanes)):
            fits = number == "auto" or (isinstance(number, int) and number >= 1)
            require(fits, name, number, "'auto' or 1 or more")


def check_beams(beam_size: int, patience: float | None, length_penalty: float | None) -> None:
    """Raises WrongValue for a beam search that there is not."""
    require(1 <= beam_size <= MAX_BEAMS, "beam_size", beam_size, f"1 to {MAX_BEAMS}")
    for name, value in (("patience", patience), ("length_penalty", length_penalty)):
        require(value is None or beam_size > 1, name, value, "left out with greedy decoding (beam_size 1)")
    require(patience is None or 0.0 < patience <= 10.0, "patience", patience, "above 0, at most 10")
    fits = length_penalty is None or 0.0 <= length_penalty <= 1.0
    require(fits, "length_penalty", length_penalty, "0 to 1")


def check_fits(
    *, sparsify_layer: int, language: str | None, task: str, num_layers: int, languages: Collection[str],
    tasks: Collection[str],
) -> None:  # fmt: skip
    """Raises WrongValue for what a model cannot do.

    language: None to detect it. num_layers: encoder layers of the model. languages: codes it knows.
    tasks: what it can do.
    """
    require(
        sparsify_layer <= num_layers, "sparsify_layer", sparsify_layer, f"1 to {num_layers} for this model"
    )
    known = language is None or language in languages
    require(known, "language", language, f"auto, each or one of {' '.join(sorted(languages))}")
    require(task in tasks, "task", task, " or ".join(tasks) + " for this model")
