"""How many CPUs and how much memory a process may use, whatever the host has."""

from __future__ import annotations

import math
import os

import pytest

from pipeline.dataflow import machine
from pipeline.dataflow.machine import allowed_bytes, allowed_cpus

V1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/"


@pytest.fixture
def host(monkeypatch):
    """A machine of 32 CPUs, all of which this process may use."""
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 32)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _pid: set(range(32)), raising=False)


def made(tmp_path, groups, files):
    """A root with /proc/self/cgroup and files of control groups."""
    for name, text in {
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{n}": t for n, t in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    return tmp_path


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("groups", "files", "wanted"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "20000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, 32),
        ("0::/a/b", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4),
        ("0::/a/b", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "300000 100000"}, 3),
        ("0::/../kubepods/x", {"cpu.max": "200000 100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        (
            V1,
            {
                "cpu/docker/abc/cpu.cfs_quota_us": "50000", "cpu/docker/abc/cpu.cfs_period_us": "10000",
                "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
            },
            5,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 32),
        (V1, {"unified/cpu.max": "300000 100000"}, 3),
        ("0::/", {}, 32),
    ],
)  # fmt: skip
def test_a_quota_of_version_1_or_2_says_how_many_cpus_there_are(tmp_path, groups, files, wanted):
    found = allowed_cpus(made(tmp_path, groups, files))
    assert found.num == wanted
    assert ("quota" in found.reason) == (wanted < 32)


@pytest.mark.usefixtures("host")
def test_affinity_says_how_many_and_the_smaller_of_both_rules(tmp_path, monkeypatch):
    root = made(tmp_path, "0::/", {"cpu.max": "400000 100000"})
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _pid: {0, 1}, raising=False)
    assert (allowed_cpus(root).num, allowed_cpus(root).reason) == (2, "CPU affinity, the machine has 32")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    assert allowed_cpus(root).num == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_the_affinity_of_this_process_counts():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_cpus().num == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("groups", "files", "wanted"),
    [
        ("0::/a", {"a/memory.max": str(1 << 30), "memory.max": "max"}, 1 << 30),
        (V1, {"memory/memory.limit_in_bytes": str(2 << 30)}, 2 << 30),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, math.inf),
        ("0::/", {"memory.max": "max"}, math.inf),
    ],
)
def test_a_limit_says_how_much_memory_there_is(tmp_path, groups, files, wanted):
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert allowed_bytes(made(tmp_path, groups, files)) == min(wanted, physical)
