"""What the machine gives the job: its CPUs, what these can do, its memory, or what a container leaves."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Cpus:
    """How many CPUs the job may use, and why so many."""

    num: int
    reason: str


def allowed_cpus(root: Path = Path("/")) -> Cpus:
    """The CPUs that this process may use: those of the machine, of its affinity, or of its group's quota.

    A quota of 1.5 CPUs is two threads. root: of /proc and /sys.
    """
    machine = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    quota = min(_quotas(root), default=math.inf)
    if quota < min(affinity, machine):
        reason = f"a CPU quota of {quota:g}, the machine has {machine}"
        return Cpus(num=max(1, math.ceil(quota)), reason=reason)
    if affinity < machine:
        return Cpus(num=affinity, reason=f"CPU affinity, the machine has {machine}")
    return Cpus(num=machine, reason="all of the machine")


def allowed_bytes(root: Path = Path("/")) -> int:
    """The memory that this process and its neighbours in its group may use."""
    limits = _texts(root, "memory", ("memory.max", "memory.limit_in_bytes"))
    found = [int(text) for text in limits if text != "max"]
    return min([*found, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")])


def cpu_lines(key: str, root: Path = Path("/")) -> list[str]:
    """What Linux says of each CPU under a key, `flags` or `model name`; nothing elsewhere."""
    info = root / "proc" / "cpuinfo"
    lines = info.read_text().splitlines() if info.is_file() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(key)]


def cpu_flags(root: Path = Path("/")) -> set[str]:
    """The instructions that the first CPU has, by Linux's names; none where that is unknown."""
    return set(next(iter(cpu_lines("flags", root)), "").split())


def _quotas(root: Path) -> Iterator[float]:
    """The quotas of the groups that this process is in, in CPUs."""
    for text in _texts(root, "cpu", ("cpu.max",)):  # version 2: quota and period in one file
        quota, period = text.split()
        if quota != "max":
            yield int(quota) / int(period)
    for quota, period in zip(
        _texts(root, "cpu", ("cpu.cfs_quota_us",)), _texts(root, "cpu", ("cpu.cfs_period_us",)), strict=False
    ):
        if int(quota) > 0:  # -1: none
            yield int(quota) / int(period)


def _texts(root: Path, controller: str, names: tuple[str, ...]) -> Iterator[str]:
    """What these files hold, in every control group that this process is in."""
    for folder in _groups(root, controller):
        for name in names:
            try:
                yield (folder / name).read_text().strip()
            except OSError:  # a group of the other version, or one that this container does not see
                continue


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups of version 1 and 2, each up to where it is mounted.

    In a container the path may be that of the host, and only the mount itself is there.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        parts = [part for part in path.split("/") if part not in ("", "..")]
        if controllers and controller not in controllers.split(","):
            continue
        for top in (mount / controller,) if controllers else (mount, mount / "unified"):
            yield from (top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))
