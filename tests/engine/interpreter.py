"""Triton's kernels in its interpreter, in a process of its own: it must be on before they are imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def compare_interpreted(script: str, cases: Sequence[Any]) -> list[dict[str, Any]]:
    """What a script printed as JSON of each case, after whether the kernel is usable at all."""
    if find_spec("triton") is None:
        pytest.skip("the triton package is not installed: it comes with torch's CUDA builds")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(cases)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    usable, *found = json.loads(done.stdout)
    assert usable
    return found
