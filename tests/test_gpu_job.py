"""`make gpu-job` with the CPU in the card's place: three jobs on Ray, and their rows beside each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.ray
def test_jobs_of_half_precision_say_how_they_differ_from_float32_and_what_they_took(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "GPUS": "0", "SPEECH_S": "20"}
    done = subprocess.run(
        ["bash", "tests/gpu_job.sh", "-", tmp_path],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"num_words"')]
    assert len(found) == 2, done.stderr[-3000:]
    assert all(one["missing"] == [] and one["num_words"] > 300 for one in found)
    assert all(one["devices"] == ["cpu"] and min(one["batch_sizes"]) >= 1 for one in found)
    assert all(one["peak_memory_bytes"] > 1e8 and one["device_busy"] > 0 for one in found)
    _, float16 = found
    assert float16["changed"] <= 0.001
    assert done.returncode == any(one["changed"] > 0.001 for one in found)
