"""A Ray cluster on this machine for jobs that are disturbed, and the processes in it that may be killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

NODE_CPUS = 2
STARTS = 8
OBJECT_STORE_BYTES = 120 << 20
# A node that was killed is missed after 8 s instead of 15.
HEALTH_CHECKS = {"health_check_period_ms": 1000, "health_check_failure_threshold": 8}


T = TypeVar("T")


class SmallCluster:
    """A head that takes no work and nodes of two CPUs; use it as a context manager.

    Only processes of its own nodes are ever killed.
    """

    def __init__(self, num_nodes: int = 2) -> None:
        self._folder = tempfile.mkdtemp(prefix="ray-")
        head = {"num_cpus": 0, "_system_config": HEALTH_CHECKS, "temp_dir": self._folder}
        self._cluster = _started({**self._settings(), **head})
        self.nodes = [self.add_node() for _ in range(num_nodes)]

    def __enter__(self) -> SmallCluster:
        return self

    def __exit__(self, *_error: object) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    @staticmethod
    def _settings() -> dict[str, object]:
        return {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}

    @property
    def address(self) -> str:
        """What `RAY_ADDRESS` must be for a driver to use this cluster."""
        return self._cluster.address

    def add_node(self) -> object:
        """Let a node of two CPUs join."""
        return patiently(lambda: self._cluster.add_node(num_cpus=NODE_CPUS, **self._settings()))

    def kill_node(self, number: int) -> str:
        """Kill a node with all its processes. Returns its id."""
        node = self.nodes.pop(number)
        workers = _children(_raylet_pid(node))
        self._cluster.remove_node(node, allow_graceful=False)
        for pid, _ in workers:  # a machine that is gone takes its workers along at once
            kill(pid)
        return node.node_id

    def workers(self, *kinds: str) -> list[int]:
        """Processes of the nodes that run a task or an actor whose name has one of `kinds` in it."""
        found = []
        for node in self.nodes:
            for pid, name in _children(_raylet_pid(node)):
                if name.startswith("ray::") and any(kind in name for kind in kinds):
                    found.append(pid)
        return sorted(found)


def patiently(start: Callable[[], T]) -> T:
    """Start something of Ray, whose patience of 30 s is not enough where there is much else to do."""
    for _ in range(STARTS - 1):
        try:
            return start()
        except Exception as error:
            print(f"tried again: {error}", flush=True)
    return start()


def _started(head: dict[str, object]) -> Any:
    from ray.cluster_utils import Cluster

    return patiently(lambda: Cluster(initialize_head=True, head_node_args=dict(head)))


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def kill(pid: int) -> bool:
    """Kill a process; False if it ended before."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _raylet_pid(node: object) -> int:
    return node.all_processes["raylet"][0].process.pid


def _children(parent: int) -> list[tuple[int, str]]:
    """The processes that a process started, with their names."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ppid = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            name = (folder / "cmdline").read_text().replace("\0", " ").strip()
        except (OSError, ValueError):
            continue
        if ppid == parent:
            found.append((int(folder.name), name))
    return found
