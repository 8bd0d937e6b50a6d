"""A file per run, renewed while it lasts, so that a run that was killed is paid for too."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType

from pipeline.driver.model import ENGINE_VERSION
from pipeline.output.files import RUNS_FOLDER
from pipeline.output.store import Store

SAMPLE_S = 10.0
JOIN_S = 5.0  # a sample may wait for a Ray that is gone

log = logging.getLogger("earshard")


def new_run_id() -> str:
    """A name that sorts by time and is its own to the microsecond."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S-%f")


class RunRecord:
    """Context manager that keeps `runs/RUN.json` up to date: start, end, and GPU-seconds held.

    `gpus_held` is asked every `SAMPLE_S` seconds in a thread; it may be replaced once Ray is connected.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.gpus_held: Callable[[], float] = lambda: 0.0
        self._store = store
        self._name = f"{RUNS_FOLDER}/{run_id}.json"
        self._started = datetime.now(UTC)
        self._last = self._started
        self._gpu_seconds = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="run-record", daemon=True)
        self._run_id = run_id

    def __enter__(self) -> RunRecord:
        self._write("running")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(JOIN_S)
        self._write("ended" if kind is None else "stopped")

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            try:
                self._write("running")
            except OSError as error:  # the next sample counts its seconds too
                log.warning("the record of the run could not be renewed: %s", error)

    def _write(self, state: str) -> None:
        now = datetime.now(UTC)
        if state == "running":
            self._gpu_seconds += self.gpus_held() * (now - self._last).total_seconds()
        self._last = now
        record = {
            "run_id": self._run_id,
            "engine_version": ENGINE_VERSION,
            "state": state,
            "started_at": self._started.isoformat(),
            "last_seen_at": now.isoformat(),
            "wall_s": (now - self._started).total_seconds(),
            "gpu_seconds_held": self._gpu_seconds,
        }
        self._store.replace(self._name, json.dumps(record, indent=2).encode())


def total_wall_s(store: Store) -> float:
    """Seconds all runs of an output took, those that were killed up to their last sign of life."""
    contents = (store.read(name) for name in store.names(RUNS_FOLDER))
    return sum(json.loads(content)["wall_s"] for content in contents if content)
