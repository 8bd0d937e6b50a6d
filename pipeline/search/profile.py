"""Where the time of a window goes, as a search sums it up over the windows that it timed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class OperationTime:
    """Seconds a window that one part of the engine takes, dense and sparse."""

    name: str
    dense_s: float
    sparse_s: float

    def as_dict(self) -> dict[str, Any]:
        """The part as it is printed."""
        return asdict(self)


def mean_times(rows: Iterable[Mapping[str, Any]]) -> list[OperationTime]:
    """The parts per window, from all shards (rows of `SHARD_TRIALS`); none where none were timed."""
    timed = [row for row in rows if row["parts"]]
    num_windows = sum(row["num_timed"] for row in timed)
    sums: dict[str, list[float]] = {}
    for row in timed:
        for part in row["parts"]:
            total = sums.setdefault(part["name"], [0.0, 0.0])
            total[0] += part["dense_s"]
            total[1] += part["sparse_s"]
    return [
        OperationTime(name=name, dense_s=dense / num_windows, sparse_s=sparse / num_windows)
        for name, (dense, sparse) in sums.items()
    ]
