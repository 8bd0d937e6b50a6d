"""The share of windows that give text where nobody speaks, by kind of sound and way of running."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.benchmark.accuracy.corpus import read_corpus
from pipeline.benchmark.accuracy.programs import levels, our_setting
from pipeline.benchmark.accuracy.runs import Request, run_program
from pipeline.benchmark.no_speech.clips import write_clips
from pipeline.results.page import Table

ALL = "all"
Z_95 = 1.96


def settings(model: Path) -> list[str]:
    """Dense and every level that ships for the model, with voice activity and without."""
    rungs = range(len(levels(model)) + 1)
    return [our_setting(rung, voice_activity=heeds) for heeds in (True, False) for rung in rungs]


def count_invented(manifest: Path, model: Path, output: Path, programs: Sequence[str]) -> dict[str, Any]:
    """Runs what is left to run, and writes `no-speech.json` after every program."""
    clips = write_clips(manifest, output / "clips")
    request = Request(
        manifest=clips, recordings=read_corpus(clips), model=model, output=output, asks_language=True
    )
    outcome: dict[str, Any] = {"manifest": manifest.name, "model": model.name, "programs": {}}
    for name in programs:
        rows = run_program(name, request)
        outcome["programs"][name] = {"cpu_s": sum(row["cpu_s"] for row in rows), **_figures(request, rows)}
        (output / "no-speech.json").write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    return outcome


def _figures(request: Request, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for one, heard in zip(request.recordings, rows, strict=True):
        for name in (one.group, ALL):
            texts[name].append(heard["text"].strip())
    return {
        "kinds": {name: _shares(own) for name, own in texts.items()},
        "texts": {row["file"]: row["text"] for row in rows if row["text"].strip()},
    }


def _shares(texts: Sequence[str]) -> dict[str, Any]:
    num_with_text = sum(map(bool, texts))
    return {
        "num_windows": len(texts),
        "num_with_text": num_with_text,
        "share": num_with_text / len(texts),
        "interval": wilson(num_with_text, len(texts)),
    }


def wilson(num: int, of: int) -> tuple[float, float]:
    """The central 95 % of a share (Wilson 1927)."""
    share, spread = num / of, Z_95**2 / of
    middle = share + spread / 2
    half = Z_95 * math.sqrt(share * (1 - share) / of + spread / of / 4)
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def tables(outcome: Mapping[str, Any]) -> Iterator[Table]:
    """What the terminal shows."""
    programs = outcome["programs"]
    kinds = list(next(iter(programs.values()))["kinds"])
    yield Table(
        title="Windows with text where nobody speaks, and the central 95 % of the share of all",
        header=("sound", "windows", *programs),
        rows=tuple(
            (
                kind,
                str(next(iter(programs.values()))["kinds"][kind]["num_windows"]),
                *(_cell(kind, one["kinds"][kind]) for one in programs.values()),
            )
            for kind in sorted(kinds, key=lambda kind: kind == ALL)
        ),
    )


def _cell(kind: str, found: Mapping[str, Any]) -> str:
    share = f"{found['num_with_text']} ({found['share']:.1%})"
    if kind != ALL:
        return share
    low, high = found["interval"]
    return f"{share}, {low:.1%} to {high:.1%}"
