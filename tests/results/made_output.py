"""Outputs of jobs that never ran."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from pipeline.output import files
from pipeline.output.local_store import LocalStore
from pipeline.results import report
from pipeline.results.report_source import read_output
from pipeline.schema import METRICS, PLAN, TRANSCRIPTS, table_of
from tests.fakes import plan_row

DAY = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
HOSTILE = '<script>alert("x")</script>\'"><img src=x onerror=alert(1)>{{ 7*7 }}\u202e'
STAMP = {"fingerprint": "f" * 16, "plan_hash": "p" * 16}


def marker(shard_id, run_id, started_at, **changes):
    values = {
        **dict.fromkeys(METRICS.names, 0),
        "shadow_windows": [],
        "shard_id": shard_id, "run_id": run_id, "num_recordings": 2, "audio_s": 3600.0, "speech_s": 3000.0,
        "wall_s": 40.0, "device_s": 36.0, "rtf": 0.01, "rtfx": 100.0, "kept_positions": 750,
        "total_positions": 1500, "sparsity_mean": 0.5, "level": None, "slowest": None, "num_hits": 90,
        "num_substitutions": 10, "wer": 0.1,
        "cost_usd": 0.035, "device": "cuda:0", "host": "h", "model": "large", "transcripts_sha256": "",
        "attempts": 1, "started_at": started_at, "finished_at": started_at + timedelta(seconds=40), **STAMP,
    }  # fmt: skip
    return values | changes


def transcript(recording_id, shard_id, **changes):
    values = {
        **dict.fromkeys(TRANSCRIPTS.names),
        "recording_id": recording_id, "uri": f"/in/{recording_id}", "part": 0, "channel": 0,
        "shard_id": shard_id, "status": "ok", "duration_s": 1800.0, "speech_s": 1500.0, "text": "x",
        "segments": [], "reference": "x", "num_hits": 45, "num_substitutions": 5, "num_deletions": 0,
        "num_insertions": 0, "partial": False, "model": "large",
    }  # fmt: skip
    return values | changes


def failed(recording_id, shard_id, error_type="corrupt", message="cannot be decoded"):
    counts = dict.fromkeys(("num_hits", "num_substitutions", "num_deletions", "num_insertions"))
    error = {"error_type": error_type, "error_message": message}
    return transcript(recording_id, shard_id, status="failed", text=None, segments=None, **counts, **error)


def run_record(run_id, started_at, *, wall_s=60.0, gpu_seconds_held=60.0, state="ended"):
    return {
        "run_id": run_id, "state": state, "started_at": started_at.isoformat(),
        "last_seen_at": (started_at + timedelta(seconds=wall_s)).isoformat(), "wall_s": wall_s,
        "gpu_seconds_held": gpu_seconds_held,
    }  # fmt: skip


def make_output(folder, markers, transcripts, runs, model="large"):
    store = LocalStore.open(str(folder))
    store.replace("_job.json", json.dumps({**STAMP, "options": {"model": model}}).encode())
    rows = [plan_row(row["recording_id"], shard_id=row["shard_id"]) for row in transcripts]
    store.replace("plan/plan-00000.parquet", files.parquet_bytes(table_of(PLAN, rows)))
    for row in markers:
        own = [one for one in transcripts if one["shard_id"] == row["shard_id"]]
        table = table_of(TRANSCRIPTS, own)
        store.replace(files.transcripts_name(row["shard_id"]), files.parquet_bytes(table))
        store.replace(files.metrics_name(row["shard_id"]), files.parquet_bytes(table_of(METRICS, [row])))
    for record in runs:
        store.replace(f"runs/{record['run_id']}.json", json.dumps(record).encode())
    return str(folder)


def make(*paths, price=None):
    return report.make_report([read_output(path, price) for path in paths])
