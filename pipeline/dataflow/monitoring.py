"""What Prometheus sees of a running job: counters that Ray exports, brought up to date by every commit.

A shard that is committed counts once, whatever was tried before. The counters belong to processes and end
with them: they are for watching, and money is counted from the committed rows. Labels are few: the model, the
device, the status of a recording and why it failed.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable
from functools import cache
from typing import Any

import pyarrow as pa
from ray.util.metrics import Counter, Gauge

LABELS = ("model", "device")
# Column of METRICS -> counter and what it counts.
COUNTED = {
    "audio_s": ("earshard_audio_seconds", "Seconds of audio committed."),
    "speech_s": ("earshard_speech_seconds", "Seconds of it that are speech."),
    "device_s": ("earshard_device_seconds", "Seconds that the model's device worked for it."),
    "num_windows": ("earshard_windows", "Windows transcribed."),
    "num_tokens": ("earshard_tokens", "Tokens of their text."),
    "num_fallback": ("earshard_fallback_windows", "Windows that the quality gates had decoded again."),
    "total_positions": ("earshard_positions", "Encoder positions of the windows."),
    "kept_positions": ("earshard_kept_positions", "Encoder positions that reached the decoder."),
}
SHARDS = ("earshard_shards", "Shards committed.")
RECORDINGS = ("earshard_recordings", "Rows committed, by status: ok or failed.")
FAILURES = ("earshard_failures", "Failed rows, by cause.")
RTFX = ("earshard_shard_rtfx", "Seconds of audio per device second in the last shard of a process.")
SPARSITY = ("earshard_shard_sparsity", "Share of positions dropped in the last shard of a process.")


def commit_and_count(result: pa.Table, this_round: Any, *, commit: Callable[..., pa.Table]) -> pa.Table:
    """The commit stage of a job, watched: the marker that `commit` makes of a result, counted."""
    marker = commit(result, this_round)
    for row in marker.to_pylist():
        count(row, _causes(result) if row["num_failed"] else {})
    return marker


def count(marker: dict[str, Any], causes: dict[str, int]) -> None:
    """Count one committed shard: a row of `METRICS`, and its failed rows by cause."""
    labels = {name: str(marker[name]) for name in LABELS}
    _add(SHARDS, 1, labels)
    for column, described in COUNTED.items():
        _add(described, marker[column], labels)
    num_failed = marker["num_failed"]
    _add(RECORDINGS, marker["num_recordings"] - num_failed, labels | {"status": "ok"})
    _add(RECORDINGS, num_failed, labels | {"status": "failed"})
    for cause, number in causes.items():
        _add(FAILURES, number, labels | {"error_type": cause})
    for described, column in ((RTFX, "rtfx"), (SPARSITY, "sparsity_mean")):
        if marker[column] is not None:
            _gauge(described).set(marker[column], labels)


def _causes(result: pa.Table) -> dict[str, int]:
    """Failed rows by cause; the causes are the few of docs/outputs.md."""
    rows = result.column("transcripts").to_pylist()[0]
    return Tally(row["error_type"] for row in rows if row["status"] == "failed")


def _add(described: tuple[str, str], value: float, labels: dict[str, str]) -> None:
    if value > 0:  # Ray refuses to count nothing
        _counter(described, tuple(labels)).inc(value, labels)


@cache
def _counter(described: tuple[str, str], labels: tuple[str, ...]) -> Counter:
    name, description = described
    return Counter(name, description=description, tag_keys=labels)


@cache
def _gauge(described: tuple[str, str]) -> Gauge:
    name, description = described
    return Gauge(name, description=description, tag_keys=LABELS)
