"""The options of a job: frozen, checked once, and hashed into the fingerprint of its output."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from pipeline.engine.options import (
    DEFAULT_LAYER,
    DEFAULT_SELECTOR,
    LANGUAGE_MODES,
    MAX_SPARSITY,
    SELECTORS,
    TASKS,
    WrongValue,
    check_beams,
)
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.adaptive.policy_file import PolicyFile
    from pipeline.sources.recording import Recording

CHANNELS = ("mix", "split", "auto")
STREAMS = ("first", "all")
# Options that the first outputs do not name: what is hashed and stored leaves them out at their defaults.
LATER = {
    **{"streams": "first", "beam_size": 1, "patience": None, "length_penalty": None},
    **{"hotwords": None, "condition_on_previous_text": False},
}
# What is no option of its own, as messages name it.
NO_OPTIONS = {
    "model_revision": "the revision of --model",
    "engine_version": "the engine's version",
    "schema_version": "the schema's version",
}
ADAPTIVE = "adaptive"
DEFAULT_BUDGET = 0.01
MAX_BUDGET = 0.5
Channels = Literal["mix", "split", "auto"]
Streams = Literal["first", "all"]
Duplicates = Literal["once", "transcribe"]


class OptionError(UserError):
    """An option has a value that it may not have; the message names the option and what it may be."""


def _require(condition: bool, option: str, value: object, allowed: str) -> None:
    if not condition:
        raise OptionError(f"--{option} {value}: must be {allowed}")


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What can change a row of the output, after every `auto` was resolved.

    `model_revision` identifies the weights: a commit of the hub, or a hash of a local folder.
    Hours are hours of audio. Raises `OptionError` when made with a value out of range.
    """

    model: str
    model_revision: str
    dtype: str
    engine_version: str
    schema_version: int = 1
    sparsity: float | str = ADAPTIVE  # a share of positions, `adaptive`, or `policy:` and a policy's hash
    wer_budget: float | None = None  # excess errors per dense word; `DEFAULT_BUDGET` but at a fixed sparsity
    sparsify_layer: int = DEFAULT_LAYER
    selector: str = DEFAULT_SELECTOR
    language: str = "auto"
    task: str = "transcribe"
    initial_prompt: str | None = None
    hotwords: str | None = None
    condition_on_previous_text: bool = False
    beam_size: int = 1
    patience: float | None = None
    length_penalty: float | None = None
    word_timestamps: bool = False
    voice_activity: bool = True
    channels: Channels = "mix"
    streams: Streams = "first"
    shard_hours: float = 1.0
    max_hours: float = 24.0

    def __post_init__(self) -> None:
        """Choose what goes with the sparsity; check every field whose range is the same for all models."""
        if isinstance(self.sparsity, str) and self.wer_budget is None:
            object.__setattr__(self, "wer_budget", DEFAULT_BUDGET)
        if not isinstance(self.sparsity, str):
            check_sparsity(self.sparsity)
        check_budget(self.sparsity, self.wer_budget)
        _require(self.sparsify_layer >= 1, "sparsify-layer", self.sparsify_layer, "a layer from 1 on")
        _require(self.selector in SELECTORS, "selector", self.selector, " | ".join(SELECTORS))
        _require(self.task in TASKS, "task", self.task, " | ".join(TASKS))
        _require(self.channels in get_args(Channels), "channels", self.channels, " | ".join(CHANNELS))
        _require(self.streams in get_args(Streams), "streams", self.streams, " | ".join(STREAMS))
        fixed = not (self.condition_on_previous_text and isinstance(self.sparsity, str))
        _require(fixed, "sparsity", self.sparsity, "a number with --condition-on-previous-text")
        try:
            check_beams(self.beam_size, self.patience, self.length_penalty)
        except WrongValue as error:
            raise as_option(error) from error
        _require(
            self.language in LANGUAGE_MODES or re.fullmatch("[a-z]{2,3}", self.language) is not None,
            "language",
            self.language,
            "auto, each or a language code such as en",
        )
        check_positive("shard-hours", self.shard_hours)
        check_positive("max-hours", self.max_hours)
        _require(self.shard_hours <= 2.0, "shard-hours", self.shard_hours, "at most 2 (512 MB a shard)")

    def fingerprint(self) -> str:
        """Hash of every option, 16 hexadecimal digits: equal fingerprints give equal rows."""
        canonical = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """The options by name, as they are stored in `_job.json`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value != LATER.get(name, ...)}

    def difference(self, stored: Mapping[str, Any]) -> str | None:
        """Name the first option whose stored value differs, with both values; None if none does.

        An option that came after the stored ones had its default then.
        """
        defaults = {field.name: field.default for field in fields(self)}
        for name, value in vars(self).items():
            before = stored.get(name, defaults[name])
            if before != value:
                named = NO_OPTIONS.get(name, f"--{name.replace('_', '-')}")
                return f"{named} was {before} and is now {value}"
        return None


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What a user asks for.

    `options` holds fields of `JobOptions` that differ from their defaults; the first four are never among
    them. `recordings` is what to transcribe of the inputs; None: all that is found there.
    """

    inputs: tuple[str, ...]
    output: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    references: str | None = None
    all_files: bool = False
    duplicates: Duplicates = "once"  # recordings of one content
    upgrade: bool = False  # whether an output of an older engine is resumed with this one
    recordings: tuple[Recording, ...] | None = None
    policy: PolicyFile | None = None  # what `--sparsity FILE` holds


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is carried out: none of it can change a row, so none of it is in the fingerprint."""

    batch_size: int | None = None  # None: chosen for the device
    min_actors: int | None = None  # None: one on a CPU, the GPUs of a cluster otherwise
    max_actors: int | None = None
    gpus_per_actor: float | None = None  # None: 1 where there are GPUs
    gpu_hour_usd: float = 3.5
    max_failed: float = 0.01
    retry_failed: bool = False
    local: bool | None = None  # in one process, without Ray; None: if it is small and no cluster is there


def as_option(error: WrongValue, note: str = "") -> OptionError:
    """What the engine says of a field, said of the command's option."""
    name = error.field.replace("_", "-")
    return OptionError(f"--{name} {error.value}: must be {error.allowed}{note}")


def check_positive(option: str, value: float) -> None:
    """Raise `OptionError` unless `value` is a finite number above 0."""
    _require(math.isfinite(value) and value > 0, option, value, "a number above 0")


def check_sparsity(value: float) -> None:
    """Raise `OptionError` unless `value` is a share of positions that may be dropped."""
    _require(0.0 <= value <= MAX_SPARSITY, "sparsity", value, f"a number from 0 to {MAX_SPARSITY}")


def check_budget(sparsity: float | str, budget: float | None) -> None:
    """Raise `OptionError` unless there is a budget where sparsity is adaptive, and none elsewhere."""
    if isinstance(sparsity, str):
        fits = budget is not None and 0.0 < budget <= MAX_BUDGET
        _require(fits, "wer-budget", budget, f"a number above 0, at most {MAX_BUDGET}")
    else:
        _require(budget is None, "wer-budget", budget, f"left out at a fixed sparsity ({sparsity})")
