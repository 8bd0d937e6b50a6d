"""Calibration: the cheapest level whose excess is within the budget, from a sample decoded at all of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipeline.adaptive import bounds, sampling
from pipeline.adaptive.bounds import Draw, draw_of
from pipeline.adaptive.certainty import floor_of, is_unsure
from pipeline.adaptive.comparison import begun_earlier, by_root, compare, heard_languages
from pipeline.engine.audio import SAMPLE_RATE
from pipeline.engine.sparsify.level import Level
from pipeline.longform.placed import PlacedWindow, placed_windows
from pipeline.longform.transcribe import Transcriber, transcribe_windows
from pipeline.schema import SAMPLE_RESULT, table_of


@dataclass(frozen=True, kw_only=True)
class CalibrationTask:
    """What the actors need to calibrate: the ladder."""

    ladder: tuple[Level, ...]


def sample_number(shard_id: int) -> int:
    """The number of a sample unit from its number among units of work."""
    return -1 - shard_id


def calibrate_unit(
    shard: pa.Table,
    engine: Transcriber,
    *,
    unit: int,
    language: str,
    ladder: Sequence[Level],
) -> pa.Table:
    """Decode a unit of the sample dense, dense begun earlier, and at every level.

    shard: one row of `SHARD_AUDIO`. Returns a row of `SAMPLE_RESULT`.
    """
    row = {name: shard.column(name)[0] for name in shard.column_names}
    recordings = row["recordings"].as_py()
    windows = _first(placed_windows(row), sampling.STRETCH_S)
    earlier = {window.root: begun_earlier(window) for window in windows}
    first = transcribe_windows(windows, recordings, engine, language)
    dense, languages = by_root(first), heard_languages(first)
    same = {shifted.root: languages[root] for root, shifted in earlier.items()}
    shifted = by_root(transcribe_windows(list(earlier.values()), recordings, engine, same))
    found: list[dict[str, Any]] = []
    for rung, level in enumerate(ladder, 1):
        sparse = by_root(transcribe_windows(windows, recordings, engine, language, level))
        for (recording, start_s), results in sparse.items():
            where = {"unit": unit, "recording_id": recordings[recording]["recording_id"], "start_s": start_s}
            root = recording, start_s
            compared = compare(dense[root], shifted[earlier[root].root], results)
            found.append({**where, "level": rung, **compared.as_dict()})
    return table_of(SAMPLE_RESULT, [{"unit": unit, "windows": found}])


def _first(windows: Sequence[PlacedWindow], seconds: float) -> list[PlacedWindow]:
    """The first windows, of so many seconds at most, at least one: estimates of a file's length err."""
    ends = [sum(len(w.samples) for w in windows[: i + 1]) / SAMPLE_RATE for i in range(len(windows))]
    return [window for i, window in enumerate(windows) if i == 0 or ends[i] <= seconds]


@dataclass(frozen=True, kw_only=True)
class LevelEvidence:
    """What the sample says of one level.

    excess, bound: see `adaptive.bounds`. cost: positions kept and those of retries, over the same when dense:
    what a device takes at most, without the noise of its clock. Retries that dense would not need count
    against a level.
    """

    level: int
    num_windows: int
    num_words: int
    excess: float | None
    bound: float
    cost: float
    retried_share: float
    dense_device_s: float
    sparse_device_s: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Where the ladder is entered, and why. `ladder` are its levels as a policy file has them.

    min_logprob: of all its levels (see `engine.sparsify.level.Level`), from the dense texts of the sample.
    """

    start: int
    reason: str
    error_level: float
    min_logprob: float | None = None
    ladder: tuple[dict[str, Any], ...] = ()
    levels: tuple[LevelEvidence, ...] = ()

    def as_json(self) -> bytes:
        """The content of its file."""
        return json.dumps(asdict(self), indent=2).encode()


def stored_decision(content: bytes) -> tuple[tuple[Level, ...], int]:
    """The ladder of a stored decision and the rung that it starts on."""
    stored = json.loads(content)
    return tuple(Level.from_dict(level) for level in stored["ladder"]), stored["start"]


def too_small(reason: str) -> Decision:
    """The decision to run dense because nothing can be said of the loss."""
    return Decision(start=0, reason=reason, error_level=bounds.CALIBRATION_ERROR)


def decide(rows: Sequence[Mapping[str, Any]], num_levels: int, budget: float) -> Decision:
    """Where to start: the cheapest of the levels that are within the budget.

    The levels are looked at mildest first, up to the first whose bound passes the budget; that one and all
    that are sparser are out. Testing in a fixed order that ends at the first failure, each test may use the
    whole error level of the calibration. `rows` are those of `SAMPLE`; a level that a unit was not decoded
    at has failed.
    """
    floor = floor_of(row["dense_logprob"] for row in rows if row["level"] == 1)
    evidence: list[LevelEvidence] = []
    for rung in range(1, num_levels + 1):
        at_rung = [guarded(row, floor) for row in rows if row["level"] == rung]
        if {row["unit"] for row in at_rung} != {row["unit"] for row in rows}:
            break
        evidence.append(_evidence(rung, at_rung, budget))
        if not evidence[-1].passed:
            break
    words = evidence[0].num_words if evidence else 0
    if words < sampling.MIN_WORDS:
        return too_small(f"the sample has {words} dense words, {sampling.MIN_WORDS} are needed")
    passed = [level for level in evidence if level.passed and level.cost < 1]
    best = min(passed, key=lambda level: (level.cost, level.level), default=None)
    start, reason = 0, "no level is within the budget and saves work"
    if best is not None:
        start, reason = best.level, "the cheapest level within the budget"
    return Decision(
        start=start,
        reason=reason,
        error_level=bounds.CALIBRATION_ERROR,
        min_logprob=floor,
        levels=tuple(evidence),
    )


def _evidence(rung: int, rows: Sequence[Mapping[str, Any]], budget: float) -> LevelEvidence:
    draws = _draws(rows)
    bound = bounds.upper_bound(draws, error_level=bounds.CALIBRATION_ERROR)
    kept, total, retried, dense = (
        sum(row[f"{name}_positions"] for row in rows) for name in ("kept", "total", "retried", "dense")
    )
    return LevelEvidence(
        level=rung,
        num_windows=len(rows),
        num_words=sum(draw.num_words for draw in draws),
        excess=bounds.excess(draws),
        bound=bound,
        cost=(kept + retried) / dense if dense else 1.0,
        retried_share=retried / total if total else 0.0,
        dense_device_s=math.fsum(row["dense_device_s"] for row in rows),
        sparse_device_s=math.fsum(row["sparse_device_s"] for row in rows),
        passed=bound <= budget,
    )


def guarded(row: Mapping[str, Any], floor: float | None) -> Mapping[str, Any]:
    """A row of `SAMPLE` as it is with that floor: the sample itself is decoded before one is known.

    An unsure window becomes what dense made of it, and takes the time of both: a little more than in a job,
    where the tails that sparse text left are not decoded then.
    """
    if not is_unsure(row, floor):
        return row
    return {
        **row,
        "sparse_errors": 0,
        "shifted_errors": row["dense_errors"],
        "retried_positions": row["retried_positions"] + row["dense_positions"],
        "sparse_device_s": row["sparse_device_s"] + row["dense_device_s"],
    }


def draws_of(rows: Sequence[Mapping[str, Any]], ladder: Sequence[Level]) -> tuple[tuple[Draw, ...], ...]:
    """What rows of `SAMPLE` say of each level of the ladder, with its floor, from rung 1 on."""
    return tuple(
        _draws([guarded(row, level.min_logprob) for row in rows if row["level"] == rung])
        for rung, level in enumerate(ladder, 1)
    )


def _draws(rows: Sequence[Mapping[str, Any]]) -> tuple[Draw, ...]:
    """The windows in the order of unit and place."""
    ordered = sorted(rows, key=lambda row: (row["unit"], row["recording_id"], row["start_s"]))
    return tuple(map(draw_of, ordered))
