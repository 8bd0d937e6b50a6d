"""A run's record tells what it held, also when it was killed."""

import json
import time

import pytest

from pipeline.driver import run_record
from pipeline.driver.run_record import RunRecord, total_wall_s
from pipeline.output.local_store import LocalStore


@pytest.fixture
def store(tmp_path):
    return LocalStore.open(str(tmp_path))


def read(store, run_id):
    return json.loads(store.read(f"runs/{run_id}.json"))


def test_gpu_seconds_are_sampled_while_the_run_lasts(store, monkeypatch):
    monkeypatch.setattr(run_record, "SAMPLE_S", 0.02)
    with RunRecord(store, "r") as record:
        record.gpus_held = lambda: 4.0
        deadline = time.monotonic() + 60
        while not (held := read(store, "r"))["gpu_seconds_held"]:  # what a killed run would leave behind
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert held["state"] == "running"
        assert held["gpu_seconds_held"] <= 4 * held["wall_s"]
    assert read(store, "r")["state"] == "ended"


def test_a_run_that_was_stopped_says_so(store):
    with pytest.raises(KeyboardInterrupt), RunRecord(store, "r"):
        raise KeyboardInterrupt
    assert read(store, "r")["state"] == "stopped"


def test_the_wall_time_of_a_job_is_that_of_all_its_runs(store):
    for run_id in ("a", "b"):
        with RunRecord(store, run_id):
            time.sleep(0.05)
    assert total_wall_s(store) == pytest.approx(sum(read(store, run)["wall_s"] for run in ("a", "b")))
    assert total_wall_s(store) >= 0.1
