"""Which audio is decoded both ways: drawn by hash, so that every run of a job draws the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.planning import BATCH_ROWS, MIN_PART_S, estimate_s
from pipeline.schema import PLAN

MAX_SHARE = 0.02  # of the job's audio, by the plan's estimate
MIN_WORDS = 2_000  # dense words below which a sample says too little of a loss of one in a hundred
MAX_WORDS_PER_S = 4.0  # nobody reads faster for long: a sample too short for `MIN_WORDS` is not decoded
MAX_SAMPLE_S = 5400.0  # more than ten thousand words of ordinary speech; more would decide nothing else
STRETCH_S = 300.0  # of one recording at most: many recordings say more than many minutes of one
MIN_STRETCH_S = float(MIN_PART_S)  # the cuts at both ends lie within 30 s of their places
MIN_OFFSET_S = 30.0  # a cut is looked for from so much before its place on

SHADOW_SHARE = 0.01  # of the windows: decoded dense twice, they cost 2 % of what a dense job takes


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A row of the plan, bounded to what the sample takes of it."""

    row: dict[str, Any]
    seconds: float  # of audio, by the plan's estimate


def draw_units(plan: pa.Table, plan_hash: str, *, shard_s: float) -> list[pa.Table]:
    """The calibration sample of a plan: units of work with the schema `PLAN`, in the order they are drawn.

    At most `MAX_SHARE` of the audio; empty where that cannot hold `MIN_WORDS`. `shard_s` is the audio that a
    unit may hold, in seconds, at most `STRETCH_S` of it are used.
    """
    estimates = _estimates(plan)
    room_s = min(MAX_SAMPLE_S, MAX_SHARE * float(estimates.sum()))
    if room_s * MAX_WORDS_PER_S < MIN_WORDS:
        return []
    units: list[list[Stretch]] = []
    filled_s = 0.0
    for stretch in _stretches(plan, estimates, plan_hash, room_s):
        if not units or filled_s + stretch.seconds > min(STRETCH_S, shard_s):
            units.append([])
            filled_s = 0.0
        units[-1].append(stretch)
        filled_s += stretch.seconds
    return [pa.Table.from_pylist([stretch.row for stretch in unit], schema=PLAN) for unit in units]


def _stretches(plan: pa.Table, estimates: np.ndarray, plan_hash: str, room_s: float) -> Iterator[Stretch]:
    """Rows in the order of their hash until the room is full, of a long one a stretch at a drawn place."""
    keys = _by_batch(plan, lambda row: fraction(plan_hash, "calibration", row["recording_id"], row["part"]))
    for index in np.argsort(keys, kind="stable").tolist():
        whole_s = float(estimates[index])
        seconds = min(whole_s, STRETCH_S, room_s)
        if seconds < min(whole_s, MIN_STRETCH_S):
            return
        room_s -= seconds
        row = plan.slice(index, 1).to_pylist()[0]
        if seconds < whole_s:
            # On whole seconds, as the plan's own cuts are: they are samples at any rate.
            place = fraction(plan_hash, "place", row["recording_id"], row["part"])
            offset_s = row["offset_s"] + float(int(place * (whole_s - seconds)))
            row["offset_s"] = offset_s if offset_s >= MIN_OFFSET_S else 0.0
            row["duration_s"] = float(int(seconds))
        yield Stretch(row=row, seconds=seconds)


def _estimates(plan: pa.Table) -> np.ndarray:
    """Seconds of audio of each row of the plan, at least one, as the plan fills its shards."""
    return _by_batch(plan, _row_s)


def _row_s(row: Mapping[str, Any]) -> float:
    if row["duration_s"] is not None:
        return max(1.0, row["duration_s"])
    return max(1.0, estimate_s(row["uri"], row["member"], row["bytes"], None) - row["offset_s"])


def _by_batch(plan: pa.Table, value: Callable[[Mapping[str, Any]], float]) -> np.ndarray:
    """A number for each row: a million of them never exist as objects at once."""
    batches = plan.drop_columns(["reference", "identity"]).to_batches(max_chunksize=BATCH_ROWS)
    return np.array([number for batch in batches for number in map(value, batch.to_pylist())])


def fraction(*key: str | int | float) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_drawn(share: float, salt: str, recording_id: str, channel: int, start_s: float) -> bool:
    """Whether a window is in the shadow."""
    return fraction(salt, "shadow", recording_id, channel, f"{start_s:.3f}") < share
