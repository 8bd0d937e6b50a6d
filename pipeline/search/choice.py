"""Which settings are worth using: the Pareto front, the best within a budget, and the policy they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.adaptive.policy_file import PolicyFile
from pipeline.engine.sparsify.level import Level
from pipeline.search.figures import ALL, SettingFigures, finite
from pipeline.search.settings import Setting, level_name


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A level, by the worst that was seen of it under any condition.

    excess: excess errors per dense word. bound: what that is below with 95 % of certainty; `inf` where dense
    said too little. device_ratio: device time over dense. num_words: of dense. wer_change: None without
    references.
    """

    level: Level
    excess: float
    bound: float
    device_ratio: float
    num_words: int = 0
    wer_change: float | None = None

    @property
    def name(self) -> str:
        return level_name(self.level)

    def as_dict(self) -> dict[str, Any]:
        """What is known of the level, as policy files have it."""
        return {
            "name": self.name,
            "level": self.level.as_dict(),
            "num_words": self.num_words,
            "wer_change": self.wer_change,
            "excess": finite(self.excess),
            "excess_bound": finite(self.bound),
            "device_ratio": finite(self.device_ratio),
        }


def candidates(settings: Sequence[Setting], figures: Sequence[SettingFigures]) -> list[Candidate]:
    """The levels that were tried, in the order of the settings."""
    by_name = {one.setting: one for one in figures if one.group == ALL}
    seen: defaultdict[Level, list[SettingFigures]] = defaultdict(list)
    for setting in settings:
        if setting.level is not None:
            seen[setting.level].append(by_name[setting.name])
    worst = float("inf")
    return [
        Candidate(
            level=level,
            excess=max(worst if one.excess is None else one.excess for one in own),
            bound=max(one.excess_bound for one in own),
            device_ratio=max(worst if one.device_ratio is None else one.device_ratio for one in own),
            num_words=min(one.num_dense_words for one in own),
            wer_change=max((one.wer_change for one in own if one.wer_change is not None), default=None),
        )
        for level, own in seen.items()
    ]


def front(found: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats in excess and device time both, the slowest first."""
    return sorted(
        (one for one in found if not any(_beats(other, one) for other in found)),
        key=lambda one: -one.device_ratio,
    )


def _beats(other: Candidate, one: Candidate) -> bool:
    no_worse = other.excess <= one.excess and other.device_ratio <= one.device_ratio
    return no_worse and (other.excess < one.excess or other.device_ratio < one.device_ratio)


def best(found: Sequence[Candidate], wer_budget: float) -> Candidate | None:
    """The fastest level whose excess is within the budget even at the upper end of its interval.

    None where no level is both within the budget and faster than dense.
    """
    fitting = [one for one in found if one.bound <= wer_budget and one.device_ratio < 1.0]
    return min(fitting, key=lambda one: one.device_ratio, default=None)


def policy(
    found: Sequence[Candidate],
    wer_budget: float,
    *,
    model: str,
    model_revision: str,
    evidence: Mapping[str, Any],
) -> PolicyFile:
    """A ladder of the levels within the budget, the slowest first; it starts at the last, the best.

    A level that is slower than another of no greater bound is no rung. Without any level the job runs dense.
    """
    fitting = [one for one in found if one.bound <= wer_budget and one.device_ratio < 1.0]
    rungs = front(fitting)
    return PolicyFile(
        model=model,
        model_revision=model_revision,
        levels=tuple(one.level for one in rungs),
        start=len(rungs),
        evidence={**evidence, "levels": [one.as_dict() for one in rungs]},
    )
