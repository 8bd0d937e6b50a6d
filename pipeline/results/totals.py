"""The totals of a job, from its committed files alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pipeline.metrics import cost, wer
from pipeline.metrics.shard import sparsity
from pipeline.output.store import Store
from pipeline.results.report_source import OutputFacts
from pipeline.schema import COUNTS

SUCCESS = "_SUCCESS"
REPORT = "report.json"


def job_totals(facts: OutputFacts, *, wall_s: float) -> dict[str, Any]:
    """The totals of a job as the last line of its command prints them; wall_s: seconds its runs took.

    Hours and seconds are of audio unless their name says device or wall; a ratio is null where there is
    nothing to divide by.
    """
    counts = wer.total(one.counts for one in facts.scored)
    scored = bool(counts.num_reference_words or counts.num_errors)
    audio_s, device_s = facts.total("audio_s"), facts.total("device_s")
    costs = [marker["cost_usd"] for marker in facts.markers if marker["cost_usd"] is not None]
    return {
        "output": facts.path,
        "num_recordings": facts.num_recordings,
        "num_ok": facts.num_recordings - facts.num_failed,
        "num_failed": facts.num_failed,
        "num_skipped": facts.num_skipped,
        "num_passed_over": facts.num_passed_over,
        "num_copies": facts.num_copies,
        "errors": dict(sorted((failure.error_type, failure.num_rows) for failure in facts.failures)),
        "num_shards": len(facts.markers),
        "audio_s": audio_s,
        "speech_s": facts.total("speech_s"),
        "wall_s": wall_s,
        "device_s": device_s,
        "rtf": cost.rtf(device_s, audio_s),
        "rtfx": cost.rtfx(device_s, audio_s),
        "wer": counts.wer if scored else None,
        **(asdict(counts) if scored else dict.fromkeys(COUNTS)),
        "normaliser": wer.NORMALISER if scored else None,
        "sparsity_mean": sparsity(facts.total("kept_positions"), facts.total("total_positions")),
        "num_fallback": int(facts.total("num_fallback")),
        "fallback_device_s": facts.total("fallback_device_s"),
        "adaptive": facts.adaptive,
        "cost_usd": sum(costs) if costs else None,
        "devices": sorted({marker["device"] for marker in facts.markers}),
        "batch_sizes": sorted({size for marker in facts.markers if (size := marker["batch_size"])}),
        "peak_memory_bytes": max((marker["peak_memory_bytes"] or 0 for marker in facts.markers), default=0),
        "models": sorted({marker["model"] for marker in facts.markers}),
    }


def write_totals(store: Store, totals: dict[str, Any]) -> None:
    """Write the report, and then the file that says that every row exists."""
    content = json.dumps(totals, indent=2, ensure_ascii=False).encode()
    store.replace(REPORT, content)
    store.replace(SUCCESS, content)


def read_totals(store: Store) -> dict[str, Any] | None:
    """The totals of a job whose every row exists; None before that."""
    content = store.read(SUCCESS)
    return json.loads(content) if content else None
