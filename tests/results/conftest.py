"""Fixtures of the tests in this folder."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.results.made_output import (
    DAY,
    HOSTILE,
    failed,
    make_output,
    marker,
    run_record,
    transcript,
)


@pytest.fixture
def output(tmp_path):
    """Two shards of one run, and a run that was killed without a shard."""
    markers = [
        marker(0, "r2", DAY),
        marker(1, "r2", DAY + timedelta(seconds=60), device_s=72.0, cost_usd=0.07),
    ]
    rows = [transcript(f"{number}.wav", number // 2) for number in range(3)]
    killed = run_record("r1", DAY - timedelta(days=1), gpu_seconds_held=300.0, state="running")
    return make_output(
        tmp_path / "out",
        markers,
        [*rows, failed(f"{HOSTILE}.wav", 1, message=HOSTILE)],
        [killed, run_record("r2", DAY, gpu_seconds_held=200.0)],
    )
