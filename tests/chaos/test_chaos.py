"""The short version of `make chaos`: faults of every kind, and nothing is lost, doubled or torn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED_POINTS = {
    *("list", "read", "decode", "infer", "open temporary file", "fsync temporary file", "link transcripts"),
    *("remove temporary file", "fsync folder", "link marker", "rename report", "rename _SUCCESS"),
    *("rename plan", "rename _job.json", "open attempt", "rename run record", "link lock"),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", f"tests.chaos.{script}", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_nothing_is_amiss(found):
    assert found["faults"] == found["survived"] > 0, found
    assert (found["lost"], found["doubled"], found["torn"], found["touched"]) == (0, 0, 0, 0), found


def test_any_file_operation_may_fail_or_be_the_last_before_a_kill(tmp_path):
    found = run("file_faults", tmp_path, "--every", 40)
    assert_nothing_is_amiss(found)
    assert found["operations"] > 200
    assert found["points"].keys() >= NAMED_POINTS


def test_a_store_that_refuses_delays_cuts_and_forgets_loses_and_doubles_nothing(tmp_path):
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    found = run("store_faults", tmp_path, "--runs", 2)
    assert_nothing_is_amiss(found)
    assert found["injected"].keys() == {"503", "slow", "short body", "lost reply", "reset"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    from tests.chaos.ray_faults import Bench
    from tests.chaos.small_cluster import SmallCluster

    with SmallCluster() as cluster:
        yield Bench(tmp_path_factory.mktemp("chaos"), cluster, num_recordings=24, seed=0)


def judged(tally):
    assert tally.clean, tally.notes
    return tally


@pytest.mark.ray
def test_killed_drivers_lose_nothing_and_leave_what_is_committed(bench):
    from tests.chaos.ray_faults import kill_drivers

    assert judged(kill_drivers(bench, 2)).faults == 2


@pytest.mark.ray
def test_killed_actors_and_workers_lose_nothing_in_the_same_run(bench):
    from tests.chaos.ray_faults import ACTOR, WORKERS, kill_workers

    assert judged(kill_workers(bench, 4, ACTOR, *WORKERS)).faults == 4


@pytest.mark.ray
def test_two_drivers_that_start_at_once_do_the_work_once(bench):
    from tests.chaos.ray_faults import start_two_drivers

    judged(start_two_drivers(bench, 1))


@pytest.mark.ray
def test_killed_nodes_are_replaced_by_late_ones(bench):
    from tests.chaos.ray_faults import kill_nodes

    assert judged(kill_nodes(bench, 2)).faults == 2


def test_ten_times_the_files_cost_a_driver_less_than_a_tenth_more_memory(tmp_path):
    few, many = (run("memory", "driver", tmp_path / str(n), "--files", n) for n in (60, 600))
    assert many < 1.1 * few


def test_a_worker_holds_no_more_after_hundreds_of_files(tmp_path):
    held = run("memory", "worker", tmp_path / "w", "--files", 500)
    early, late = held[2], held[-1]
    for name in ("open_files", "decoder_open_files", "threads"):
        assert late[name] <= early[name], name
    for name in ("bytes", "decoder_bytes"):
        assert late[name] < 1.1 * early[name], name


@pytest.mark.ray
def test_an_autoscaler_brings_two_nodes_for_two_actors_and_takes_them_away(tmp_path):
    found = run("autoscaled", tmp_path)
    assert found == {"gpu_nodes": [0, 2, 0], "status": 0, "devices": 2}
