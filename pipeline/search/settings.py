"""What a search tries: settings of sparsification, the conditions they are tried under, and the presets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from pipeline.adaptive.comparison import SHIFT_S
from pipeline.adaptive.job_policy import LADDER
from pipeline.config import check_sparsity
from pipeline.engine.options import SELECTORS
from pipeline.engine.sparsify.level import Level

# arXiv 2506.15912 keeps up to layer 4 of any model dense, and drops 30 to 60 % of the positions.
PAPER_LAYERS = (1, 2, 3, 4)
PAPER_SPARSITIES = (0.3, 0.4, 0.5, 0.6)
SPARSITIES = (0.3, 0.5, 0.7)
CONTROLS = ("attention", "stride")
SNRS_DB = (None, 20.0, 10.0, 5.0)
BATCH_SIZES = (1, 4, 16, 64)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a setting and the dense run that it is compared with have in common.

    snr_db: noise added to the windows, by its distance to the speech; None: as they are.
    batch_size: windows decoded side by side; None: as the job's options say.
    """

    snr_db: float | None = None
    batch_size: int | None = None

    @property
    def name(self) -> str:
        """Words for a table; "" for the windows as they are."""
        noise = "" if self.snr_db is None else f"{self.snr_db:g} dB"
        batch = "" if self.batch_size is None else f"batch {self.batch_size}"
        return " ".join(part for part in (noise, batch) if part)


PLAIN = Condition()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One thing to try: a level of sparsity (None: dense) under a condition.

    is_shifted: on windows begun a little earlier (`comparison.begun_earlier`), which shows what dense changes
        of its own.
    """

    level: Level | None
    condition: Condition = PLAIN
    is_shifted: bool = False

    @property
    def name(self) -> str:
        """A short unique name: `dense`, `i2 s0.50 attention`, with ` thin` where the ends are thinned."""
        shift = f"+{SHIFT_S} s" if self.is_shifted else ""
        return " ".join(part for part in (level_name(self.level), shift, self.condition.name) if part)

    def as_dict(self) -> dict[str, Any]:
        """The setting as it is stored."""
        return {
            "name": self.name,
            "level": None if self.level is None else self.level.as_dict(),
            "snr_db": self.condition.snr_db,
            "batch_size": self.condition.batch_size,
            "is_shifted": self.is_shifted,
        }


def level_name(level: Level | None) -> str:
    """A level as a few characters."""
    if level is None:
        return "dense"
    thin = " thin" if level.thin_ends else ""
    return f"i{level.layer} s{level.sparsity:.2f} {level.selector}{thin}"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A question and the settings that answer it; dense is added under every condition.

    by_language: figures are also given for each language of the corpus.
    profiles: where the time of a window goes is measured too.
    """

    question: str
    levels: Callable[[], Iterable[Level]]
    conditions: Sequence[Condition] = (PLAIN,)
    by_language: bool = False
    profiles: bool = False


def _paper() -> Iterable[Level]:
    for layer, sparsity in product(PAPER_LAYERS, PAPER_SPARSITIES):
        yield Level(layer=layer, sparsity=sparsity)


def _paper_choice() -> Iterable[Level]:
    yield Level(layer=2, sparsity=0.5)


def _with_control() -> Iterable[Level]:
    yield from (Level(layer=2, sparsity=0.5, selector=selector) for selector in CONTROLS)


def _languages() -> Iterable[Level]:
    for sparsity, selector in product(SPARSITIES, CONTROLS):
        yield Level(layer=2, sparsity=sparsity, selector=selector)


def _adaptive() -> Iterable[Level]:
    yield from LADDER


def _aggregations() -> Iterable[Level]:
    for sparsity, selector in product(SPARSITIES, SELECTORS):
        yield Level(layer=2, sparsity=sparsity, selector=selector)


PRESETS = {
    "adaptive": Preset(question="Which levels of an adaptive job are within the budget?", levels=_adaptive),
    "paper": Preset(question="The paper's grid: which layer and sparsity?", levels=_paper),
    "profile": Preset(
        question="Where does the time of a window go at i = 2, s = 0.5?", levels=_paper_choice, profiles=True
    ),
    "noise": Preset(
        question="Does the choice of positions survive noise?",
        levels=_with_control,
        conditions=tuple(Condition(snr_db=snr_db) for snr_db in SNRS_DB),
    ),
    "language": Preset(
        question="Is the loss the same in every language?", levels=_languages, by_language=True
    ),
    "aggregation": Preset(question="Which rule keeps the right positions at equal k?", levels=_aggregations),
    "batch": Preset(
        question="How much of the saving is left at which batch size?",
        levels=_paper_choice,
        conditions=tuple(Condition(batch_size=size) for size in BATCH_SIZES),
    ),
}


def grid(layers: Sequence[int], sparsities: Sequence[float], selectors: Sequence[str]) -> Preset:
    """Every combination of layers, sparsities and selectors."""
    for sparsity in sparsities:
        check_sparsity(sparsity)

    def levels() -> Iterable[Level]:
        for layer, sparsity, selector in product(layers, sparsities, selectors):
            yield Level(layer=layer, sparsity=sparsity, selector=selector)

    return Preset(question="Which of the given settings is worth using?", levels=levels)


def with_floor(settings: Sequence[Setting], floor: float | None) -> list[Setting]:
    """The settings with that `min_logprob` for levels that thin the ends: those of adaptive jobs."""
    return [
        setting
        if setting.level is None or not setting.level.thin_ends
        else replace(setting, level=replace(setting.level, min_logprob=floor))
        for setting in settings
    ]


def settings_of(preset: Preset, num_layers: int) -> tuple[list[Setting], list[str]]:
    """The settings of a preset that a model of `num_layers` encoder layers can do, dense twice first.

    Returns:
        The settings, and the names of those left out because their layer is above the model's.
    """
    levels = list(preset.levels())
    left_out = [level_name(level) for level in levels if level.layer > num_layers]
    fitting = [level for level in levels if level.layer <= num_layers]
    settings = []
    for condition in preset.conditions:
        settings += [
            Setting(level=None, condition=condition, is_shifted=shifted) for shifted in (False, True)
        ]
        settings += [Setting(level=level, condition=condition) for level in fitting]
    return settings, left_out
