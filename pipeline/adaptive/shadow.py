"""The shadow: a sample of the windows of a running job, decoded dense as well, and dense once more.

The rows of the job hold the sparse text of these windows too, so that the sample stands for all of them.
Only their counts are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pipeline.adaptive.bounds import Draw
from pipeline.adaptive.comparison import (
    Compared,
    begun_earlier,
    by_root,
    compare,
    device_s,
)
from pipeline.adaptive.sampling import is_drawn
from pipeline.engine.sparsify.level import Level
from pipeline.longform.placed import PlacedResult, PlacedWindow, Root
from pipeline.longform.transcribe import Transcriber, transcribe_windows


@dataclass(frozen=True, kw_only=True)
class ShardLevel:
    """How sparse a shard is: the level of a rung (None on rung 0, dense), and how its shadow is drawn.

    share: of its windows that are in it. salt: the hash of the plan.
    """

    rung: int
    level: Level | None
    share: float
    salt: str


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """The counts of a shard's shadow, by their names in the metrics; `shadow_windows` one by one."""

    num_shadow: int = 0
    shadow_num_errors: int = 0
    shadow_num_words: int = 0
    shadow_windows: tuple[Draw, ...] = ()
    shadow_dense_device_s: float = 0.0
    shadow_sparse_device_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The counts by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The windows of a shard that its shadow is cast of.

    windows: all of the shard. recordings: rows of `READ_RECORDING`.
    """

    windows: Sequence[PlacedWindow]
    recordings: Sequence[Mapping[str, Any]]
    engine: Transcriber
    chosen: ShardLevel

    @cached_property
    def drawn(self) -> list[PlacedWindow]:
        """The windows that are in it, by the hash of their place; no window where the shard is dense."""
        return [] if self.chosen.level is None else [one for one in self.windows if self._is_drawn(one)]

    def _is_drawn(self, window: PlacedWindow) -> bool:
        chosen, recording = self.chosen, self.recordings[window.recording]
        return is_drawn(
            chosen.share, chosen.salt, recording["recording_id"], recording["channel"], window.start_s
        )

    @cached_property
    def earlier(self) -> list[PlacedWindow]:
        """The same, begun earlier."""
        return [begun_earlier(window) for window in self.drawn]

    def decode(self, languages: Mapping[Root, str | None]) -> list[PlacedResult]:
        """Both dense. languages: those that the drawn windows are in, by their roots."""
        if not self.drawn:
            return []
        of_earlier = {
            own.root: languages[window.root] for window, own in zip(self.drawn, self.earlier, strict=True)
        }
        return transcribe_windows(
            [*self.drawn, *self.earlier], self.recordings, self.engine, {**languages, **of_earlier}
        )

    def shadow(self, results: Sequence[PlacedResult], dense: Sequence[PlacedResult]) -> tuple[Shadow, float]:
        """The counts, and the seconds the device worked for them.

        results: of the shard. dense: what `decode` gave.
        """
        sparse, by_window = by_root(results), by_root(dense)
        compared = [
            compare(by_window[window.root], by_window[shifted.root], sparse[window.root])
            for window, shifted in zip(self.drawn, self.earlier, strict=True)
        ]
        return _added_up(compared), device_s(dense)


def _added_up(compared: Sequence[Compared]) -> Shadow:
    return Shadow(
        num_shadow=len(compared),
        shadow_num_errors=sum(one.draw.sparse_errors for one in compared),
        shadow_num_words=sum(one.draw.num_words for one in compared),
        shadow_windows=tuple(one.draw for one in compared),
        shadow_dense_device_s=math.fsum(one.dense_device_s for one in compared),
        shadow_sparse_device_s=math.fsum(one.sparse_device_s for one in compared),
    )
