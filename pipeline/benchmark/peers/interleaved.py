"""Interleaved rounds: every contender once per round, in turn, so that a busy machine slows all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from pipeline.benchmark.peers.seat import Timed

# Ours over theirs; above 1 is ours ahead.
RATIOS = ("f32/generate", "f32_eas/f32", "int8/ct2_int8", "int8_eas/ct2_int8", "int8_eas/generate")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One contender's run over one batch.

    cpu_s: CPU time of its whole process, all threads. same_tokens: the share of its tokens that are those of
    our float32 at the same place; None where that did not run.
    """

    case: str
    contender: str
    round: int
    num_windows: int
    num_tokens: int
    cpu_s: float
    wall_s: float
    same_tokens: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_rounds(
    case: str, contenders: Mapping[str, Callable[[], Timed]], num_rounds: int
) -> list[Measurement]:
    """Times each contender num_rounds times, after one run each that warms up."""
    reference = None
    for name, run in contenders.items():
        warm = run()
        reference = warm.tokens if name == "f32" else reference
    names = list(contenders)
    rounds = []
    for number in range(num_rounds):
        start = number % len(names)  # another one goes first every time
        for name in names[start:] + names[:start]:
            rounds.append(_round(case, name, number, contenders[name](), reference))
    return rounds


def _round(case: str, name: str, number: int, timed: Timed, reference: list[list[int]] | None) -> Measurement:
    return Measurement(
        case=case,
        contender=name,
        round=number,
        num_windows=len(timed.tokens),
        num_tokens=sum(map(len, timed.tokens)),
        cpu_s=timed.cpu_s,
        wall_s=timed.wall_s,
        same_tokens=None if reference is None else same_share(timed.tokens, reference),
    )


def same_share(tokens: list[list[int]], reference: list[list[int]]) -> float:
    """The share of the reference's tokens that the other has at the same place."""
    same = sum(
        a == b for one, other in zip(tokens, reference, strict=True) for a, b in zip(one, other, strict=False)
    )
    return same / max(1, sum(map(len, reference)))


def ratios(rounds: Iterable[Measurement]) -> dict[str, dict[str, float]]:
    """Median over rounds of the throughput ratios, per case; those that both sides of which were run."""
    times: dict[tuple[str, int], dict[str, float]] = {}
    for one in rounds:
        times.setdefault((one.case, one.round), {})[one.contender] = one.cpu_s / one.num_tokens
    found: dict[str, dict[str, list[float]]] = {}
    for (case, _), seconds in times.items():
        for name in RATIOS:
            ours, theirs = name.split("/")
            if ours in seconds and theirs in seconds:
                found.setdefault(case, {}).setdefault(name, []).append(seconds[theirs] / seconds[ours])
    return {
        case: {name: round(median(values), 3) for name, values in one.items()} for case, one in found.items()
    }


def medians(rounds: Iterable[Measurement]) -> list[dict[str, Any]]:
    """Per case and contender: median CPU and wall seconds per window."""
    grouped: dict[tuple[str, str], list[Measurement]] = {}
    for one in rounds:
        grouped.setdefault((one.case, one.contender), []).append(one)
    return [
        {
            "case": case,
            "contender": name,
            "num_tokens": runs[0].num_tokens,
            "same_tokens": runs[0].same_tokens,
            "cpu_s_per_window": round(median(run.cpu_s / run.num_windows for run in runs), 4),
            "wall_s_per_window": round(median(run.wall_s / run.num_windows for run in runs), 4),
        }
        for (case, name), runs in grouped.items()
    ]
