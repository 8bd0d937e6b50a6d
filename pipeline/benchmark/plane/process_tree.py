"""CPU time of this process and of all that it started, Ray's among them, from /proc (Linux)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

INTERVAL_S = 0.5
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One line of /proc/PID/stat. cpu_s: user and system time of all its threads, without its children's."""

    pid: int
    parent: int
    started: int  # ticks since boot: tells two processes of one number apart
    cpu_s: float


class TreeWatch:
    """Sums up the CPU time of a process tree while the context lasts.

    It looks every half second, since Ray's daemon reaps its workers without keeping their times: what a
    process did in the half second before its end is lost.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], float] = {}
        self._last: dict[tuple[int, int], float] = {}
        self._commands: dict[tuple[int, int], str] = {}
        self._parents: dict[tuple[int, int], int] = {}
        self._own_s = 0.0  # what looking costs, which is not the tree's
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> TreeWatch:
        self._first = {(one.pid, one.started): one.cpu_s for one in process_tree(os.getpid())}
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the tree spent inside the context."""
        spent = sum(seconds - self._first.get(key, 0.0) for key, seconds in self._last.items())
        return spent - self._own_s

    def cpu_s_of(self, *texts: str) -> float:
        """The same of the processes with one of these texts in their command line."""
        return sum(
            seconds - self._first.get(key, 0.0)
            for key, seconds in self._last.items()
            if any(text in self._commands[key] for text in texts)
        )

    def count(self, text: str) -> int:
        """How many processes with a text in their command line were alive at some look."""
        return sum(text in command for command in self._commands.values())

    def num_parents(self, text: str) -> int:
        """How many processes started those."""
        return len({self._parents[key] for key, command in self._commands.items() if text in command})

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL_S):
            self._look()
        self._own_s = time.thread_time()

    def _look(self) -> None:
        for process in process_tree(os.getpid()):
            key = (process.pid, process.started)
            self._last[key] = process.cpu_s
            self._parents[key] = process.parent
            # Ray renames its workers while they work; a process that ends has no command left.
            self._commands[key] = _command(process.pid) or self._commands.get(key, "")


def process_tree(root: int) -> list[Process]:
    """The process `root` and everything below it that is alive."""
    children: dict[int, list[Process]] = {}
    for process in _all_processes():
        children.setdefault(process.parent, []).append(process)
        if process.pid == root:
            found = [process]
    for process in found:  # grows while it is walked
        found += children.get(process.pid, [])
    return found


def _all_processes() -> Iterable[Process]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:  # it ended meanwhile
            continue
        fields = text.rpartition(")")[2].split()  # the name may hold blanks; the third field comes first
        yield Process(
            pid=int(path.parent.name),
            parent=int(fields[1]),
            started=int(fields[19]),
            cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
        )


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
