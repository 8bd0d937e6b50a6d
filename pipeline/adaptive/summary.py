"""What a job's adaptive sparsity came to: levels, excess and its bounds, what it saved, what retries took."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.adaptive import bounds
from pipeline.adaptive.calibration import draws_of, stored_decision
from pipeline.adaptive.files import DECISION, POLICY, read_sample
from pipeline.adaptive.policy_file import PolicyFile, parse_policy
from pipeline.adaptive.shipped import evidence_of
from pipeline.output.store import Store


def summarise_policy(
    store: Store, markers: Sequence[Mapping[str, Any]], budget: float | None
) -> dict[str, Any] | None:
    """The figures of an adaptive job, finished or not; None at a fixed sparsity.

    `excess` and its bounds are the job's own: of the shadow in shards that were sparse, and of what the job
    calibrated itself with at the levels that it then used. Each bound holds but for `error_level`; they are
    null with fewer than `bounds.MIN_DRAWS` windows. `evidence` is what the policy says of the level that it
    began with. Device seconds of the calibration are in no shard's.

    Args:
        markers: rows of METRICS.
        budget: `--wer-budget` of the job.
    """
    if budget is None:
        return None
    sparse = [marker for marker in markers if marker["level"]]
    sample = read_sample(store)
    content, given = store.read(DECISION), store.read(POLICY)
    policy = None if given is None else parse_policy(given)
    calibrated = draws_of(sample, stored_decision(content)[0]) if content is not None else ()
    used = {marker["level"] for marker in sparse}
    draws = [draw for rung, found in enumerate(calibrated, 1) if rung in used for draw in found]
    draws += [bounds.draw_of(window) for marker in sparse for window in marker["shadow_windows"] or ()]
    words = sum(draw.num_words for draw in draws)
    dense_s, sparse_s = (_sum(sparse, f"shadow_{kind}_device_s") for kind in ("dense", "sparse"))
    dense_of_windows = {(r["unit"], r["recording_id"], r["start_s"]): r["dense_device_s"] for r in sample}
    return {
        "wer_budget": budget,
        "reason": _reason(policy, content),
        "evidence": None if policy is None else evidence_of(policy),
        "levels": {str(rung): num for rung, num in sorted(_levels(markers).items())},
        "excess": bounds.excess(draws),
        "excess_low": _finite(bounds.lower_bound(draws, error_level=bounds.REPORT_ERROR)),
        "excess_bound": _finite(bounds.upper_bound(draws, error_level=bounds.REPORT_ERROR)),
        "error_level": bounds.REPORT_ERROR,
        "num_words": words,
        "sparse_differs": sum(draw.sparse_errors for draw in draws) / words if words else None,
        "dense_differs": sum(draw.dense_errors for draw in draws) / words if words else None,
        "num_shadow": int(_sum(sparse, "num_shadow")),
        "shadow_saved": 1 - sparse_s / dense_s if dense_s else None,
        "calibration_device_s": _sum(sample, "sparse_device_s") + math.fsum(dense_of_windows.values()),
    }


def _levels(markers: Sequence[Mapping[str, Any]]) -> Counter[int]:
    return Counter(marker["level"] for marker in markers if marker["level"] is not None)


def _reason(policy: PolicyFile | None, decision: bytes | None) -> str | None:
    if decision is not None:
        return json.loads(decision)["reason"]
    if policy is None:
        return None
    return f"the evidence that ships for {policy.model}" if policy.weights else "a policy file"


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None


def _sum(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return math.fsum(row[name] for row in rows)
