"""The shadow: a sample of the windows of a running job, decoded dense as well, and dense once more.

The rows of the job hold the sparse text of these windows too, so that the sample stands for all of them.
Only their counts are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.adaptive.bounds import Draw
from pipeline.adaptive.comparison import (
    Compared,
    begun_earlier,
    by_root,
    compare,
    device_s,
    heard_languages,
)
from pipeline.adaptive.sampling import is_drawn
from pipeline.engine.sparsify.level import Level
from pipeline.longform.placed import PlacedResult, PlacedWindow
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


def cast_shadow(
    windows: Sequence[PlacedWindow],
    results: Sequence[PlacedResult],
    recordings: Sequence[Mapping[str, Any]],
    engine: Transcriber,
    chosen: ShardLevel,
) -> tuple[Shadow, float]:
    """Decode the drawn windows dense, and once more begun earlier, in the language that they were heard in.

    windows, results: those of the shard; recordings: rows of `READ_RECORDING`. Returns the counts, and the
    seconds the device worked for them.
    """
    drawn = [window for window in windows if _is_drawn(window, recordings, chosen)]
    if chosen.level is None or not drawn:
        return Shadow(), 0.0
    sparse = by_root(results)
    languages = heard_languages(results)
    earlier = [begun_earlier(window) for window in drawn]
    languages |= {own.root: languages[window.root] for window, own in zip(drawn, earlier, strict=True)}
    again = transcribe_windows([*drawn, *earlier], recordings, engine, languages)
    dense = by_root(again)
    compared = [
        compare(dense[window.root], dense[shifted.root], sparse[window.root])
        for window, shifted in zip(drawn, earlier, strict=True)
    ]
    return _added_up(compared), device_s(again)


def _is_drawn(window: PlacedWindow, recordings: Sequence[Mapping[str, Any]], chosen: ShardLevel) -> bool:
    recording = recordings[window.recording]
    return is_drawn(
        chosen.share, chosen.salt, recording["recording_id"], recording["channel"], window.start_s
    )


def _added_up(compared: Sequence[Compared]) -> Shadow:
    return Shadow(
        num_shadow=len(compared),
        shadow_num_errors=sum(one.draw.sparse_errors for one in compared),
        shadow_num_words=sum(one.draw.num_words for one in compared),
        shadow_windows=tuple(one.draw for one in compared),
        shadow_dense_device_s=math.fsum(one.dense_device_s for one in compared),
        shadow_sparse_device_s=math.fsum(one.sparse_device_s for one in compared),
    )
