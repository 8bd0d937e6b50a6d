"""The totals of a job, from its committed files alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.metrics import cost, wer
from pipeline.output.store import Store
from pipeline.schema import COUNTS

SUCCESS = "_SUCCESS"
REPORT = "report.json"


def job_totals(
    output: str,
    markers: pa.Table,
    transcripts: Iterable[pa.Table],
    *,
    wall_s: float,
    adaptive: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The totals of a job as the last line of its command prints them.

    Args:
        output: its folder.
        markers: `METRICS` of its shards.
        transcripts: `TRANSCRIPTS` of its shards.
        wall_s: seconds its runs took.
        adaptive: what `adaptive.summary` says of it; None at a fixed sparsity.

    Returns:
        Hours and seconds are of audio unless their name says device or wall; a ratio is null where there
        is nothing to divide by.
    """
    failed: dict[str, bool] = {}
    causes: dict[str, int] = defaultdict(int)
    joint: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for table in transcripts:
        for row in table.select(["recording_id", "status", "error_type"]).to_pylist():
            failed[row["recording_id"]] = failed.get(row["recording_id"], False) or row["status"] == "failed"
            if row["status"] == "failed":
                causes[row["error_type"]] += 1
        in_parts = pc.and_(pc.is_valid(table.column("reference")), pc.is_null(table.column("num_hits")))
        for row in table.filter(in_parts).to_pylist():
            joint[row["recording_id"]].append(row)
    counts = _shard_counts(markers) + wer.total(_joint_counts(rows) for rows in joint.values())
    scored = bool(counts.num_reference_words or counts.num_errors)
    audio_s, device_s = _sum(markers, "audio_s"), _sum(markers, "device_s")
    kept, positions = _sum(markers, "kept_positions"), _sum(markers, "total_positions")
    costs = [value for value in markers.column("cost_usd").to_pylist() if value is not None]
    num_failed = sum(failed.values())
    return {
        "output": output,
        "num_recordings": len(failed),
        "num_ok": len(failed) - num_failed,
        "num_failed": num_failed,
        "errors": dict(sorted(causes.items())),
        "num_shards": markers.num_rows,
        "audio_s": audio_s,
        "speech_s": _sum(markers, "speech_s"),
        "wall_s": wall_s,
        "device_s": device_s,
        "rtf": cost.rtf(device_s, audio_s),
        "rtfx": cost.rtfx(device_s, audio_s),
        "wer": counts.wer if scored else None,
        **(asdict(counts) if scored else dict.fromkeys(COUNTS)),
        "normaliser": wer.NORMALISER if scored else None,
        "sparsity_mean": 1 - kept / positions if positions else None,
        "num_fallback": int(_sum(markers, "num_fallback")),
        "fallback_device_s": _sum(markers, "fallback_device_s"),
        "adaptive": adaptive,
        "cost_usd": sum(costs) if costs else None,
        "devices": sorted(set(markers.column("device").to_pylist())),
        "models": sorted(set(markers.column("model").to_pylist())),
    }


def join_text(rows: list[dict[str, Any]]) -> str:
    """The text of a recording from the rows of its parts and channels, in the order of time."""
    segments = [segment for row in rows for segment in row["segments"] or []]
    return " ".join(segment["text"].strip() for segment in sorted(segments, key=lambda s: s["start_s"]))


def _joint_counts(rows: list[dict[str, Any]]) -> wer.Counts:
    """Parts and channels are scored joined; a recording with a failed row is not scored at all."""
    if any(row["status"] == "failed" for row in rows):
        return wer.Counts()
    language = next((row["language"] for row in rows if row["language"]), None)
    return wer.count_errors(rows[0]["reference"], join_text(rows), language)


def _shard_counts(markers: pa.Table) -> wer.Counts:
    return wer.Counts(**{name: int(_sum(markers, name)) for name in COUNTS})


def _sum(table: pa.Table, column: str) -> float:
    return pc.sum(table.column(column)).as_py() or 0


def write_totals(store: Store, totals: dict[str, Any]) -> None:
    """Write the report, and then the file that says that every row exists."""
    content = json.dumps(totals, indent=2, ensure_ascii=False).encode()
    store.replace(REPORT, content)
    store.replace(SUCCESS, content)


def read_totals(store: Store) -> dict[str, Any] | None:
    """The totals of a job whose every row exists; None before that."""
    content = store.read(SUCCESS)
    return json.loads(content) if content else None
