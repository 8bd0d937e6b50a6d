"""What a job's adaptive sparsity came to: levels, loss and its bound, what it saved, what retries took."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.adaptive import bounds
from pipeline.adaptive.calibration import draws_of, stored_decision
from pipeline.adaptive.files import DECISION, POLICY, read_sample
from pipeline.output.store import Store


def summarise_policy(
    store: Store, markers: Sequence[Mapping[str, Any]], budget: float | None
) -> dict[str, Any] | None:
    """The figures of an adaptive job, finished or not; None at a fixed sparsity.

    The loss is that of the windows in shards that were sparse: the shadow, and what the job calibrated itself
    with at the levels that it then used. `loss_bound` holds but for `error_level`; it is null without words.
    Device seconds of the calibration are in no shard's.

    Args:
        markers: rows of METRICS.
        budget: `--wer-budget` of the job.
    """
    if budget is None:
        return None
    sparse = [marker for marker in markers if marker["level"]]
    sample = read_sample(store)
    used = {marker["level"] for marker in sparse}
    content = store.read(DECISION)
    calibrated = draws_of(sample, stored_decision(content)[0]) if content is not None else ()
    draws = [draw for rung, found in enumerate(calibrated, 1) if rung in used for draw in found]
    draws += [(marker["shadow_num_errors"], marker["shadow_num_words"]) for marker in sparse]
    errors, words = [draw[0] for draw in draws], [draw[1] for draw in draws]
    dense_s, sparse_s = (_sum(sparse, f"shadow_{kind}_device_s") for kind in ("dense", "sparse"))
    dense_of_windows = {(r["unit"], r["recording_id"], r["start_s"]): r["dense_device_s"] for r in sample}
    bound = bounds.upper_bound(errors, words, error_level=bounds.REPORT_ERROR) if sum(words) else None
    return {
        "wer_budget": budget,
        "reason": _reason(store, content),
        "levels": {str(rung): num for rung, num in sorted(_levels(markers).items())},
        "loss": sum(errors) / sum(words) if sum(words) else None,
        "loss_bound": bound,
        "error_level": bounds.REPORT_ERROR,
        "loss_num_words": sum(words),
        "num_shadow": int(_sum(sparse, "num_shadow")),
        "shadow_saved": 1 - sparse_s / dense_s if dense_s else None,
        "calibration_device_s": _sum(sample, "sparse_device_s") + math.fsum(dense_of_windows.values()),
    }


def _levels(markers: Sequence[Mapping[str, Any]]) -> Counter[int]:
    return Counter(marker["level"] for marker in markers if marker["level"] is not None)


def _reason(store: Store, decision: bytes | None) -> str | None:
    if decision is not None:
        return json.loads(decision)["reason"]
    return "a policy file" if store.read(POLICY) is not None else None


def _sum(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return math.fsum(row[name] for row in rows)
