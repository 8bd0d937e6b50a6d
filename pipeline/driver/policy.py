"""How a job comes to its policy: from a file, from what it stored, or by calibrating on its own audio."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline.adaptive import sampling, shipped
from pipeline.adaptive.calibration import (
    CalibrationTask,
    Decision,
    decide,
    draws_of,
    stored_decision,
    too_small,
)
from pipeline.adaptive.files import DECISION, POLICY, read_sample, sample_name
from pipeline.adaptive.job_policy import JobPolicy
from pipeline.adaptive.policy_file import PolicyFile, parse_policy
from pipeline.engine.model.snapshot import Snapshot
from pipeline.engine.sparsify.level import Level
from pipeline.output import attempts, files
from pipeline.output.state import WorkUnit
from pipeline.output.store import Store
from pipeline.schema import SAMPLE

MAX_ROUNDS = 5  # a unit that no round brought back by then is left out
log = logging.getLogger("earshard")


def sample_unit(number: int, rows: pa.Table, attempt: int = 1) -> WorkUnit:
    """A unit of the sample as a unit of work; its number there is negative, so that it is never a shard's."""
    return WorkUnit(shard_id=-1 - number, attempt=attempt, rows=rows)


# Works on sample units in a round with a number.
RunUnits = Callable[[list[WorkUnit], CalibrationTask, int], None]


def shipped_within(snapshot: Snapshot, budget: float) -> PolicyFile | None:
    """The policy that ships for a model, begun within a budget; None for weights that were not measured."""
    found = shipped.shipped_policy(snapshot)
    return None if found is None else shipped.within(found, budget)


def policy_from_file(store: Store, policy: PolicyFile, plan_hash: str, budget: float) -> JobPolicy:
    """The policy of a job that was given a file; the file is kept beside what it decides, and rules."""
    if store.publish(POLICY, policy.as_json().encode()):
        _log_given(policy, budget)
    policy = parse_policy(store.read(POLICY) or b"")
    return JobPolicy(ladder=policy.levels, start=policy.start, budget=budget, salt=plan_hash)


def policy_from_calibration(
    store: Store,
    ladder: tuple[Level, ...],
    plan: pa.Table,
    plan_hash: str,
    budget: float,
    *,
    shard_s: float,
    run_units: RunUnits,
) -> JobPolicy:
    """The policy of a job that calibrates itself, or has done so before it was stopped.

    plan: the first one, without overflow. shard_s: seconds of audio in a shard.
    """
    content = store.read(DECISION)
    if content is None:
        units = sampling.draw_units(plan, plan_hash, shard_s=shard_s)
        if units:
            _decode(store, units, CalibrationTask(ladder=ladder), run_units)
            decision = decide(read_sample(store), len(ladder), budget)
        else:
            hours = sampling.MIN_WORDS / sampling.MAX_WORDS_PER_S / sampling.MAX_SHARE / 3600
            decision = too_small(
                f"these weights were not measured, and less than {hours:.0f} h of audio cannot tell; "
                "--sparsity 0.5 --selector stride drops unmeasured, jobs.search measures on a labelled corpus"
            )
        floored = (replace(level, min_logprob=decision.min_logprob) for level in ladder)
        decision = replace(decision, ladder=tuple(level.as_dict() for level in floored))
        content = decision.as_json()
        store.publish(DECISION, content)
        _log(decision, budget)
    ladder, start = stored_decision(content)
    return JobPolicy(
        ladder=ladder,
        start=start,
        budget=budget,
        salt=plan_hash,
        calibrated=draws_of(read_sample(store), ladder),
    )


def _decode(
    store: Store, units: Sequence[pa.Table], calibration: CalibrationTask, run_units: RunUnits
) -> None:
    """Bring every unit of the sample to its file; one that cannot be worked on gets an empty one."""
    for number in range(MAX_ROUNDS):
        left = list(_left(store, units))
        if not left:
            break
        log.info("calibrating: %d of %d units of the sample to decode", len(left), len(units))
        run_units(left, calibration, number)
    for number in range(len(units)):
        if store.publish(sample_name(number), files.parquet_bytes(SAMPLE.empty_table())):
            log.warning("calibrating: unit %d of the sample did not come back and is left out", number)
        attempts.forget_shard(store, sample_unit(number, units[number]).shard_id)


def _left(store: Store, units: Sequence[pa.Table]) -> Iterator[WorkUnit]:
    marks = attempts.count_marks(store)
    for number, rows in enumerate(units):
        num_marks = marks[attempts.shard_unit(sample_unit(number, rows).shard_id)]
        if num_marks < attempts.WHOLE_ATTEMPTS and store.read(sample_name(number)) is None:
            yield sample_unit(number, rows, attempt=num_marks + 1)


def _log(decision: Decision, budget: float) -> None:
    for level in decision.levels:
        log.info(
            "level %d: excess %.2f%% of %d words, at most %.2f%% (budget %.2f%%), cost %.2f, %.1f%% retried",
            *(level.level, 100 * (level.excess or 0), level.num_words, 100 * level.bound, 100 * budget),
            *(level.cost, 100 * level.retried_share),
        )
    chosen = f"level {decision.start}" if decision.start else "dense"
    log.info("adaptive sparsity: %s: %s", chosen, decision.reason)


def _log_given(policy: PolicyFile, budget: float) -> None:
    evidence = shipped.evidence_of(policy)
    if policy.start == 0:
        log.info("adaptive sparsity: dense: no level of %s is within %.2f%%", policy.model, 100 * budget)
        return
    if evidence is None:
        log.info("adaptive sparsity: level %d of a policy of %s", policy.start, policy.model)
        return
    log.info(
        "adaptive sparsity: level %d, on evidence of %s (%d words, budget %.2f%%): WER %s, excess %s",
        *(policy.start, policy.model, evidence["num_words"], 100 * budget),
        *(_with_bound(evidence, name) for name in ("wer_change", "excess")),
    )


def _with_bound(evidence: Mapping[str, Any], name: str) -> str:
    value, bound = evidence[name], evidence.get(f"{name}_bound")
    if value is None:
        return "not known"
    return f"{100 * value:+.2f} points" + ("" if bound is None else f", at most {100 * bound:+.2f}")
