"""Cases in the order of their worth, within a time, with all that was found on disk after every one."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import one_line


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to measure. about_s: it is left out where less time than this is left."""

    name: str
    about_s: float
    run: Callable[[], dict[str, Any]]


def run_cases(
    cases: Iterable[Case], header: dict[str, Any], *, budget_s: float, path: Path | None
) -> dict[str, Any]:
    """Runs what fits; returns the header with `cases`, `failed` and `left_out`.

    path: written anew after every case, so that a run that is cut off keeps what it had; None: nowhere. A
    case that fails, for want of memory or otherwise, is named with its error and ends none of the others.
    """
    deadline = time.monotonic() + budget_s
    found: dict[str, Any] = {**header, "cases": [], "failed": {}, "left_out": []}
    _write(path, found)
    for case in cases:
        if time.monotonic() + case.about_s > deadline:
            found["left_out"].append(case.name)
            continue
        started = time.monotonic()
        try:
            row = {"case": case.name, **case.run()}
        except Exception as error:  # the others are worth their time all the same
            found["failed"][case.name] = one_line(error)
            print(f"{case.name}: {one_line(error)}", file=sys.stderr, flush=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        finally:
            took_s = time.monotonic() - started
        found["cases"].append({**row, "took_s": round(took_s, 2)})
        print(f"{case.name}: {_shown(row)} ({took_s:.0f} s)", file=sys.stderr, flush=True)
        _write(path, found)
    return found


def _shown(row: dict[str, Any]) -> str:
    numbers = {name: value for name, value in row.items() if isinstance(value, float)}
    return ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())


def _write(path: Path | None, found: dict[str, Any]) -> None:
    if path is None:
        return
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(found, indent=2))
    os.replace(partial, path)
