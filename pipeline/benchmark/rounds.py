"""Interleaved rounds: every contender once per round, in turn, so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pipeline.benchmark.contenders import Contender

# Ours over theirs; above 1 is ours ahead.
RATIOS = ("f32/generate", "f32_eas/f32", "int8/ct2_int8", "int8_eas/ct2_int8", "int8_eas/generate")


@dataclass(frozen=True, kw_only=True)
class Round:
    """One contender's run over one batch. cpu_s: CPU time of the whole process, all threads."""

    case: str
    contender: str
    round: int
    num_windows: int
    num_tokens: int
    cpu_s: float
    wall_s: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_rounds(case: str, contenders: Mapping[str, Contender], mel: Tensor, num_rounds: int) -> list[Round]:
    """Times each contender num_rounds times, after one run each that warms up."""
    for decode in contenders.values():
        decode(mel)
    names = list(contenders)
    rounds = []
    for number in range(num_rounds):
        start = number % len(names)  # another one goes first every time
        for name in names[start:] + names[:start]:
            rounds.append(_time_once(case, name, number, contenders[name], mel))
    return rounds


def _time_once(case: str, name: str, number: int, decode: Contender, mel: Tensor) -> Round:
    cpu, wall = time.process_time(), time.perf_counter()
    tokens = decode(mel)
    if mel.is_cuda:
        torch.cuda.synchronize()
    return Round(
        case=case,
        contender=name,
        round=number,
        num_windows=len(mel),
        num_tokens=sum(len(row) for row in tokens),
        cpu_s=time.process_time() - cpu,
        wall_s=time.perf_counter() - wall,
    )


def ratios(rounds: Iterable[Round]) -> dict[str, dict[str, float]]:
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


def medians(rounds: Iterable[Round]) -> list[dict[str, Any]]:
    """Per case and contender: median CPU and wall seconds per window."""
    grouped: dict[tuple[str, str], list[Round]] = {}
    for one in rounds:
        grouped.setdefault((one.case, one.contender), []).append(one)
    return [
        {
            "case": case,
            "contender": name,
            "num_tokens": runs[0].num_tokens,
            "cpu_s_per_window": round(median(run.cpu_s / run.num_windows for run in runs), 4),
            "wall_s_per_window": round(median(run.wall_s / run.num_windows for run in runs), 4),
        }
        for (case, name), runs in grouped.items()
    ]
