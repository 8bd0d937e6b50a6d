"""A contender in a process of its own: its memory is its own, and no other's threads are in its way."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmark.peers.contender import CaseSetup
from pipeline.errors import UnfinishedError, one_line


class SeatError(UnfinishedError):
    """A contender cannot run a case; one line."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One run. cpu_s: of the whole process, all threads. tokens: of each window."""

    cpu_s: float
    wall_s: float
    tokens: list[list[int]]


class Seat:
    """The parent's end of a contender's process; use it as a context manager."""

    def __init__(self, name: str, *, threads: int) -> None:
        self.name = name
        # Read when the libraries are imported, so before the process starts.
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Seat:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()

    def load(self, setting: CaseSetup) -> None:
        """Load the model of a case and forget the one before. Raises `SeatError`."""
        self._ask("load", setting)

    def run(self, inputs: np.ndarray, *, features_inside: bool) -> Timed:
        """Decode float32 features [batch, num_mels, 3000], or samples [batch, 480000] if features are inside.

        Raises `SeatError`.
        """
        return self._ask("run", inputs, features_inside)

    def peak_bytes(self) -> int:
        """The most memory that the process held since it loaded the model, libraries included."""
        return self._ask("peak_bytes")

    def _ask(self, verb: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((verb, arguments))
            fine, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise SeatError(f"{self.name}: its process ended") from None
        if not fine:
            raise SeatError(f"{self.name}: {answer}")
        return answer


class _Occupant:
    """The process's end."""

    def __init__(self, name: str) -> None:
        self._name = name

    def load(self, setting: CaseSetup) -> None:
        import torch

        from pipeline.benchmark.peers.contenders import BUILDS

        torch.set_num_threads(setting.threads)
        self._contender: Any = None
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self._contender = BUILDS[self._name](setting)

    def run(self, inputs: np.ndarray, features_inside: bool) -> Timed:
        import torch

        cpu, wall = time.process_time(), time.perf_counter()
        made = self._contender.features(list(inputs)) if features_inside else torch.from_numpy(inputs)
        tokens = self._contender(made)
        return Timed(cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall, tokens=tokens)

    def peak_bytes(self) -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _serve(pipe: Connection, name: str) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)  # libraries write progress, and stdout is for the totals
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    occupant = _Occupant(name)
    while True:
        try:
            verb, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, getattr(occupant, verb)(*arguments)
        except Exception as error:  # said by the parent, in one line
            answer = False, f"{type(error).__name__}: {one_line(error)}"
        pipe.send(answer)


def seats(names: Sequence[str], *, threads: int) -> dict[str, Seat]:
    """A process for each name."""
    return {name: Seat(name, threads=threads) for name in names}
