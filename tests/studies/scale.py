"""What a million recordings cost the driver of a job, with made results in the place of decoding and a model.

    python -m tests.studies.scale OUT [--recordings 1000000] [--per-shard 100] [--latency-ms 0]

OUT is a folder that is not there yet. Prints a JSON line for each phase: seconds of wall time and of CPU, the
most memory so far, and calls of the store by kind. latency-ms: what each call waits, as those of a bucket do.
"""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

from pipeline import planning
from pipeline.metrics import shard
from pipeline.output import files
from pipeline.output.commit import commit_shard
from pipeline.output.local_store import LocalStore
from pipeline.output.state import OutputState
from pipeline.results import report, report_html, report_source, totals
from pipeline.schema import COPIES, TRANSCRIPTS
from pipeline.sources.listing import list_recordings

SECONDS = 36.0  # of each recording
CALLS = ("publish", "replace", "read", "delete", "names")
WORDS = "what was said in a recording of thirty six seconds is about so many words as stand here "
FINGERPRINT = "0" * 16


@contextmanager
def counted(latency_s: float) -> Iterator[Counter[str]]:
    """Counts the calls of every local store, and makes each wait."""
    calls: Counter[str] = Counter()

    def counting(name: str, method: Any) -> Any:
        def call(*given: Any) -> Any:
            calls[name] += 1
            time.sleep(latency_s)
            return method(*given)

        return call

    with patch.multiple(LocalStore, **{name: counting(name, getattr(LocalStore, name)) for name in CALLS}):
        yield calls


class Phases:
    """Prints what each phase took."""

    def __init__(self, calls: Counter[str]) -> None:
        self._calls = calls

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        before, wall, cpu = self._calls.copy(), time.perf_counter(), time.process_time()
        yield
        print(
            json.dumps(
                {
                    "phase": name,
                    "wall_s": round(time.perf_counter() - wall, 1),
                    "cpu_s": round(time.process_time() - cpu, 1),
                    "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
                    "calls": dict(self._calls - before),
                }
            ),
            flush=True,
        )


def write_manifest(path: Path, num: int) -> str:
    """A manifest of recordings that nobody opens."""
    with path.open("w") as file:
        for number in range(num):
            file.write(f'{{"audio_filepath": "/archive/{number:08d}.flac", "duration": {SECONDS}}}\n')
    return str(path)


def made_result(unit_rows: list[dict[str, Any]], shard_id: int) -> dict[str, Any]:
    """What an actor would send to the commit of a shard."""
    segment = {
        "id": 0, "start_s": 0.0, "end_s": 12.0, "text": WORDS * 2, "avg_logprob": -0.2, "no_speech_prob": 0.0,
        "compression_ratio": 1.4, "sparsity": 0.5, "fallback": None, "words": None, "language": "en",
        "doubt": None,
    }  # fmt: skip
    rows = [
        {
            **dict.fromkeys(TRANSCRIPTS.names), "recording_id": row["recording_id"], "uri": row["uri"],
            "part": 0, "channel": 0, "shard_id": shard_id, "status": "ok", "duration_s": SECONDS,
            "speech_s": 0.8 * SECONDS, "language": "en", "text": WORDS * 6, "segments": [segment] * 3,
            "partial": False, "model": "sleeps",
        }
        for row in unit_rows
    ]  # fmt: skip
    return {
        "shard_id": shard_id, "attempt": 1, "transcripts": rows, "scorable": [False] * len(rows),
        "overflow": [],
        "measures": shard.no_measures("sleeps") | {"device_s": 1.0, "device": "cpu"},
    }  # fmt: skip


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--recordings", default=1_000_000)
@click.option("--per-shard", default=100)
@click.option("--latency-ms", default=0.0)
def main(out: Path, recordings: int, per_shard: int, latency_ms: float) -> None:
    """Plans, commits in two halves with a resume between, checks and reports."""
    shard_hours = per_shard * SECONDS / 3600
    with counted(latency_ms / 1000) as calls:
        phase, store = Phases(calls), LocalStore.open(str(out))
        manifest = write_manifest(out / "manifest.jsonl", recordings)
        with phase("plan"):
            found = planning.found_table(list_recordings([manifest]).recordings)
            plan = planning.plan_of(found, shard_hours=shard_hours)
            plan_hash = planning.plan_hash(plan, COPIES.empty_table())
            store.replace(files.plan_name(0), files.parquet_bytes(plan))
        job = {"fingerprint": FINGERPRINT, "plan_hash": plan_hash, "options": {"model": "sleeps"}}
        store.replace(files.JOB, json.dumps(job).encode())
        stamp = shard.RunStamp(run_id="made", gpu_hour_usd=1.0, fingerprint=FINGERPRINT, plan_hash=plan_hash)
        half = 0
        for name in ("start", "resume at half"):
            with phase(name):
                state = OutputState(store, stamp, shard_hours=shard_hours)
                state.commit_pieces({}, "sleeps")
                units = state.units()
            half = half or len(units) // 2
            with phase(f"commit {min(half, len(units))} shards"):
                for unit in units[:half] if name == "start" else units:
                    commit_shard(store, made_result(unit.rows.to_pylist(), unit.shard_id), stamp)
        with phase("read what is done"):
            state.reload()
        with phase("check every row"):
            state.check_rows()
        with phase("report"):
            facts = report_source.read_output(str(out), known=state.markers)
            totals.write_totals(store, totals.job_totals(facts, wall_s=1.0))
            report_html.render_report(report.make_report([facts]), datetime.now(UTC))


if __name__ == "__main__":
    main()
