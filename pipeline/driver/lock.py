"""One driver at a time on one output: a lock file that expires.

A lock is free again when its holder released it, when it was not renewed for `EXPIRES_S`, or when its
holder was a process that this one would see if it still ran: of the same boot of a machine and the same PID
namespace. Containers that share a host's name do not see each other's processes.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import UnfinishedError
from pipeline.output.store import Store

NAME = "_tmp/lock.json"
EXPIRES_S = 120.0
RENEW_S = 20.0

log = logging.getLogger("earshard")


class OutputBusy(UnfinishedError):
    """Another driver works on the output; the message says which."""


class DriverLock:
    """Context manager that holds the lock of an output and renews it in a thread.

    Raises `OutputBusy` on entry when another live driver holds it.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="driver-lock", daemon=True)

    def __enter__(self) -> DriverLock:
        while not self._is_ours():
            found = self._store.read(NAME)
            if found is None:
                self._store.publish(NAME, self._content())
                continue
            holder = json.loads(found)
            if _is_live(holder):
                raise OutputBusy(
                    f"{self._store.root}: run {holder['run_id']} works on it "
                    f"(process {holder['pid']} on {holder['host']})"
                )
            self._store.delete_if(NAME, found)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._thread.join()
        if self._is_ours():
            self._store.delete(NAME)

    def _renew(self) -> None:
        while not self._released.wait(RENEW_S):
            try:
                if self._is_ours():
                    self._store.replace(NAME, self._content())
            except OSError as error:  # the lock lasts for several more tries
                log.warning("the lock could not be renewed: %s", error)

    def _is_ours(self) -> bool:
        content = self._store.read(NAME)
        return content is not None and json.loads(content)["run_id"] == self._run_id

    def _content(self) -> bytes:
        pid = os.getpid()
        lock = {
            "run_id": self._run_id,
            "host": socket.gethostname(),
            "pid": pid,
            "pid_space": _pid_space(),
            "process_started": _process_start(pid),
            "expires": time.time() + EXPIRES_S,
        }
        return json.dumps(lock).encode()


def _is_live(holder: dict[str, Any]) -> bool:
    if holder["expires"] < time.time():
        return False
    if holder.get("pid_space") != _pid_space():
        return True
    return _process_start(holder["pid"]) == holder["process_started"]


def _pid_space() -> str:
    """Where the number of a process means the same: a boot of a machine, and a PID namespace there."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _process_start(pid: int) -> str | None:
    """The start time of a process in clock ticks, which tells it from a later one of the same number.

    None if there is no such process. Where there is no /proc every live process looks the same ("").
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            after_name = file.read().rpartition(")")[2].split()
        return None if after_name[0] == "Z" else after_name[19]
    except (FileNotFoundError, ProcessLookupError):
        pass
    if os.path.isdir("/proc/self"):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
