"""The trials of a search by setting and window, as they were tried and as jobs would run their levels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.adaptive.certainty import is_unsure
from pipeline.results.evaluation import Truth
from pipeline.search.settings import Condition, Setting

Key = tuple[str, int, float]  # recording_id, part and start of a window


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The trials of all shards by setting and window, and the truth of recordings (those that have one)."""

    by_setting: Mapping[str, Mapping[Key, Mapping[str, Any]]]
    truths: Mapping[str, Truth]
    speech: Mapping[str, Sequence[tuple[float, float]]]  # of recordings whose spans are known, in seconds

    @classmethod
    def collect(
        cls,
        rows: Iterable[Mapping[str, Any]],
        truths: Mapping[str, Truth],
        speech: Mapping[str, Sequence[tuple[float, float]]],
    ) -> Trials:
        """Take the rows of `SHARD_TRIALS` apart; recordings that failed anywhere are left out."""
        shards = list(rows)
        failed = {failure["recording_id"] for shard in shards for failure in shard["failures"]}
        found: defaultdict[str, dict[Key, Mapping[str, Any]]] = defaultdict(dict)
        for shard in shards:
            for trial in shard["trials"]:
                if trial["recording_id"] not in failed:
                    key = (trial["recording_id"], trial["part"], trial["start_s"])
                    found[trial["setting"]][key] = trial
        return cls(by_setting=found, truths=truths, speech=speech)

    def guarded(self, settings: Sequence[Setting]) -> Trials:
        """The trials as they are with the floors of the settings' levels, which were tried without.

        An unsure window becomes what dense made of it, and takes the time of both.
        """
        dense = dense_names(settings)
        floors = {s.name: s.level.min_logprob for s in settings if s.level is not None}
        return replace(
            self,
            by_setting={
                setting.name: {
                    key: _guarded(
                        trial, self.by_setting[dense[setting.condition]][key], floors.get(setting.name)
                    )
                    for key, trial in self.by_setting[setting.name].items()
                }
                for setting in settings
            },
        )


def _guarded(trial: Mapping[str, Any], dense: Mapping[str, Any], floor: float | None) -> Mapping[str, Any]:
    is_same_language = trial["language"] == dense["language"]  # else dense would decode it in the other one
    if not (is_same_language and is_unsure(trial, floor)):
        return trial
    return {
        **trial,
        **{name: dense[name] for name in ("text", "num_tokens", "has_loop")},
        "device_s": trial["device_s"] + dense["device_s"],
        "retry_device_s": trial["retry_device_s"] + dense["device_s"],
        "fallback": "; ".join(filter(None, ("dense", trial["fallback"]))),
    }


def dense_names(settings: Sequence[Setting]) -> dict[Condition, str]:
    """The name of the dense setting under each condition."""
    return {one.condition: one.name for one in settings if one.level is None and not one.is_shifted}


def shifted_names(settings: Sequence[Setting]) -> dict[Condition, str]:
    """The name of the setting under each condition that is dense on windows begun earlier."""
    return {one.condition: one.name for one in settings if one.is_shifted}
