"""Evidence that ships: for each model that was measured, its levels and what they cost, in `policies`.

A file is what `--sparsity FILE` takes. Its `weights` tell its model from any other, in whatever folder, dtype
or file they lie; its `evidence` has an entry for each level.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.adaptive.policy_file import PolicyFile, read_policy
from pipeline.engine.model.snapshot import Snapshot, weights_digest

POLICIES = Path(__file__).parent / "policies"


def shipped_policy(snapshot: Snapshot) -> PolicyFile | None:
    """The policy of a model that was measured, by its name on the hub or its weights; None for any other."""
    policies = [read_policy(path) for path in sorted(POLICIES.glob("*.json"))]
    named = [policy for policy in policies if policy.model == snapshot.name]
    if not named:
        weights = weights_digest(snapshot.tensors)
        named = [policy for policy in policies if policy.weights == weights]
    return named[0] if named else None


def within(policy: PolicyFile, budget: float) -> PolicyFile:
    """The policy, begun on its sparsest level up to the start that is surely within a budget.

    It was measured where there are references: the bound of the true change of WER decides, which the excess
    only estimates.
    """
    levels = policy.evidence["levels"]
    fitting = [rung for rung in range(1, policy.start + 1) if levels[rung - 1]["wer_change_bound"] <= budget]
    return replace(policy, start=max(fitting, default=0))


def evidence_of(policy: PolicyFile) -> dict[str, Any] | None:
    """What is known of the level that a policy starts with, and whose evidence it is; None without any."""
    levels = policy.evidence.get("levels")
    if not policy.start or not levels:
        return None
    return {"model": policy.model, **levels[policy.start - 1]}
