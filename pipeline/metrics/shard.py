"""The metrics row of a shard, and of a shard that was done in pieces."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.metrics import cost, wer
from pipeline.schema import COUNTS, MEASURES, METRICS, TRANSCRIPTS, table_of

# What the measures of pieces are added up in; positions and sparsities are joined with more care.
SUMS = (
    *("num_windows", "num_tokens", "wall_s", "device_s", "num_fallback", "fallback_device_s"),
    *("num_shadow", "shadow_num_errors", "shadow_num_words"),
    *("shadow_dense_device_s", "shadow_sparse_device_s"),
)


def no_measures(model: str) -> dict[str, Any]:
    """The measures of work that no device did."""
    return {
        **dict.fromkeys(MEASURES),
        **dict.fromkeys(("kept_positions", "total_positions"), 0),
        **{name: 0.0 if name.endswith("_s") else 0 for name in SUMS},
        "device": "none",
        "host": socket.gethostname(),
        "model": model,
        "started_at": datetime.now(UTC),
    }


def join_measures(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The measures of a shard that was done in pieces (at least one)."""
    on_device = [piece for piece in pieces if piece["total_positions"]]
    kept, positions = (sum(piece[name] for piece in pieces) for name in ("kept_positions", "total_positions"))
    return {
        **(on_device or pieces)[0],
        **{name: sum(piece[name] or 0 for piece in pieces) for name in SUMS},
        "kept_positions": kept,
        "total_positions": positions,
        "sparsity_mean": sparsity(kept, positions),
        "sparsity_min": min((piece["sparsity_min"] for piece in on_device), default=None),
        "sparsity_max": max((piece["sparsity_max"] for piece in on_device), default=None),
        "shadow_windows": [draw for piece in pieces for draw in piece["shadow_windows"] or ()],
        "peak_memory_bytes": max((piece["peak_memory_bytes"] or 0 for piece in on_device), default=None),
        "slowest": cost.slowest_recordings(slow for piece in pieces for slow in piece["slowest"] or ()),
        "started_at": min(piece["started_at"] for piece in pieces),
    }


def sparsity(kept_positions: float, total_positions: float) -> float | None:
    """The share of encoder positions that were dropped; None where there were none."""
    return 1 - kept_positions / total_positions if total_positions else None


@dataclass(frozen=True, kw_only=True)
class RunStamp:
    """What a run writes into every marker."""

    run_id: str
    fingerprint: str
    plan_hash: str
    gpu_hour_usd: float


def with_counts(transcripts: pa.Table, scorable: Sequence[bool]) -> pa.Table:
    """Fill in the counts of the rows that have a reference of their own.

    `scorable` tells by row whether the reference is of this row alone; parts and channels of one
    recording are scored after they are joined.
    """
    rows = transcripts.to_pylist()
    for row, alone in zip(rows, scorable, strict=True):
        if alone and row["reference"] is not None and row["status"] == "ok":
            language = row["text_language"] or row["language"]
            counts = wer.count_errors(row["reference"], row["text"], language)
            row.update({name: getattr(counts, name) for name in COUNTS})
    return table_of(TRANSCRIPTS, rows)


def total_counts(transcripts: pa.Table) -> wer.Counts | None:
    """The sum of the counts of the scored rows; None if there are none."""
    rows = transcripts.select(COUNTS).to_pylist()
    scored_rows = [row for row in rows if row["num_hits"] is not None]
    return wer.total(wer.Counts(**row) for row in scored_rows) if scored_rows else None


def metrics_row(
    shard_id: int, attempts: int, transcripts: pa.Table, measures: Mapping[str, Any], stamp: RunStamp
) -> dict[str, Any]:
    """One row of `METRICS` but for the hash of the file: the measures, and what the rows themselves tell."""
    statuses = transcripts.column("status").to_pylist()
    transcribed = transcripts.filter(pc.is_null(transcripts.column("same_as")))
    audio_s = _audio_s(transcribed)
    counts = total_counts(transcripts)
    return {
        **dict.fromkeys(METRICS.names),
        **measures,
        "shard_id": shard_id,
        "run_id": stamp.run_id,
        "num_recordings": len(statuses),
        "num_failed": statuses.count("failed"),
        "audio_s": audio_s,
        "speech_s": _sum(transcribed, "speech_s"),
        "rtf": cost.rtf(measures["device_s"], audio_s),
        "rtfx": cost.rtfx(measures["device_s"], audio_s),
        **({name: getattr(counts, name) for name in COUNTS} if counts else {}),
        "wer": counts.wer if counts else None,
        "cost_usd": cost.cost_usd(measures["device_s"], stamp.gpu_hour_usd, measures["device"]),
        "fingerprint": stamp.fingerprint,
        "plan_hash": stamp.plan_hash,
        "transcripts_rows": len(statuses),
        "attempts": attempts,
        "finished_at": datetime.now(UTC),
    }


def _audio_s(transcripts: pa.Table) -> float:
    """Seconds of audio: an hour of several channels is an hour."""
    longest: dict[tuple[str, int], float] = {}
    for row in transcripts.select(["recording_id", "part", "duration_s"]).to_pylist():
        key = (row["recording_id"], row["part"])
        longest[key] = max(longest.get(key, 0.0), row["duration_s"] or 0.0)
    return sum(longest.values())


def _sum(table: pa.Table, column: str) -> float:
    return float(sum(value for value in table.column(column).to_pylist() if value is not None))
