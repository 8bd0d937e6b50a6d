"""What a person sees of a job while it runs: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.wording import counted

LINE_EVERY_S = 30.0

log = logging.getLogger("earshard")


class JobProgress:
    """Context manager that counts committed shards: hours of audio, RTFx, failures, time left."""

    def __init__(self, num_shards: int, *, num_done: int, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr)
        self._num_shards, self._num_done = num_shards, num_done
        self._audio_s = self._device_s = 0.0
        self._num_failed = 0
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("shards"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(self._description(), total=num_shards, completed=num_done)

    def __enter__(self) -> JobProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def grow(self, num_shards: int) -> None:
        """The plan has grown by the overflow of its shards."""
        self._num_shards = num_shards
        self._bar.update(self._task, total=num_shards)

    def add(self, marker: dict[str, Any]) -> None:
        """Count one committed shard (a row of `METRICS`)."""
        self._num_done += 1
        self._audio_s += marker["audio_s"]
        self._device_s += marker["device_s"]
        self._num_failed += marker["num_failed"]
        self._bar.update(self._task, completed=self._num_done, description=self._description())
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            log.info("%d of %s, %s", self._num_done, counted(self._num_shards, "shard"), self._description())

    def _description(self) -> str:
        speed = f"RTFx {self._audio_s / self._device_s:.1f}" if self._device_s else "starting"
        return f"{self._audio_s / 3600:.2f} h of audio, {speed}, {self._num_failed} failed"
