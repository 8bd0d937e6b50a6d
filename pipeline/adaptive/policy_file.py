"""A policy: levels of sparsity, mildest first, the one to start with, and on which evidence.

`jobs.search` writes a policy as JSON, `--sparsity FILE` takes it. Rung 0 of its ladder is dense, rung n is
the n-th level.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.engine.sparsify.level import Level
from pipeline.errors import UserError, one_line

FORMAT = 1


class PolicyError(UserError):
    """A policy file cannot be used; the message is one line that names it."""


@dataclass(frozen=True, kw_only=True)
class PolicyFile:
    """A ladder of levels, mildest first. `start` is a rung: 0 is dense, n is `levels[n - 1]`.

    `model` and `model_revision` name the weights that the evidence is of; `weights` is their
    `snapshot.weights_digest`, "" in files of `jobs.search`.
    """

    model: str
    model_revision: str
    levels: tuple[Level, ...]
    start: int
    evidence: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= len(self.levels):
            raise ValueError(f"start is {self.start!r}; it may be 0 (dense) to {len(self.levels)}")

    def as_dict(self) -> dict[str, Any]:
        """The policy as its file holds it."""
        return {
            "format": FORMAT,
            "model": self.model,
            "model_revision": self.model_revision,
            **({"weights": self.weights} if self.weights else {}),
            "levels": [level.as_dict() for level in self.levels],
            "start": self.start,
            "evidence": dict(self.evidence),
        }

    def digest(self) -> str:
        """Hash of what decides: 16 hexadecimal digits, the same for other evidence."""
        decisive = {name: value for name, value in self.as_dict().items() if name != "evidence"}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]

    def as_json(self) -> str:
        """The content of its file."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"


def write_policy(path: str | Path, policy: PolicyFile) -> None:
    """Write a policy file, over one that is there."""
    Path(path).write_text(policy.as_json(), encoding="utf-8")


def read_policy(path: str | Path) -> PolicyFile:
    """Read a policy file. Raises `PolicyError`, which names the file and what is wrong with it."""
    try:
        return parse_policy(Path(path).read_bytes())
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {one_line(error)}") from error
    except ValueError as error:
        raise PolicyError(f"{path}: is not a policy file: {error}") from error


def parse_policy(content: bytes) -> PolicyFile:
    """Read the content of a policy file. Raises `ValueError` for anything else."""
    stored = json.loads(content)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise ValueError(f'must be an object with "format": {FORMAT}')
    for name, kind in (("model", str), ("model_revision", str), ("levels", list), ("start", int)):
        if not isinstance(stored.get(name), kind) or isinstance(stored[name], bool):
            raise ValueError(f'"{name}" is missing or not of type {kind.__name__}')
    return PolicyFile(
        model=stored["model"],
        model_revision=stored["model_revision"],
        levels=tuple(_level(number, found) for number, found in enumerate(stored["levels"], 1)),
        start=stored["start"],
        evidence=stored.get("evidence") or {},
        weights=str(stored.get("weights", "")),
    )


def _level(number: int, stored: object) -> Level:
    try:
        if not isinstance(stored, dict):
            raise TypeError("not an object")
        return Level.from_dict(stored)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"level {number}: {error}") from error
