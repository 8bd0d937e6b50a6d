"""The decoder's child process as its parent sees it: start, ask, kill."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.reading.audio import (
    ALIVE,
    MAX_MESSAGE,
    READY,
    DecodeLimits,
)
from pipeline.sources.recording import RecordingError

START_S = 120.0  # the child imports numpy, soundfile, PyAV and soxr: 0.5 s, minutes on a starved machine
CODE_ROOT = Path(__file__).parents[2]
# One thread, or BLAS spins on small products. glibc keeps what numpy frees: taking its pages anew costs
# 1.5 CPU-s for an hour of voice activity.
CHILD_SETTINGS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "MALLOC_MMAP_THRESHOLD_": str(128 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
}


class DecoderProcess:
    """A process that runs `pipeline.reading.decoder_child`."""

    def __init__(self, limits: DecodeLimits) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(filter(None, (str(CODE_ROOT), os.environ.get("PYTHONPATH"))))
        process_limits = json.dumps(
            {"address_space_bytes": limits.address_space_bytes, "open_files": limits.open_files}
        )
        command = [
            sys.executable,
            "-m",
            "pipeline.reading.decoder_child",
            str(theirs.fileno()),
            process_limits,
        ]
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **CHILD_SETTINGS, "PYTHONPATH": path},
            )
        self._socket = ours
        ours.settimeout(START_S)
        if self._receive() != READY:
            self.end()
            raise RuntimeError(f"the decoder's process does not start ({self._end_of_process()})")

    def ask(
        self, message: dict[str, Any], descriptors: list[int], deadline_s: float, stall_s: float
    ) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises `RecordingError` `timeout` or `crashed`."""
        ends_at = time.monotonic() + deadline_s
        try:
            socket.send_fds(self._socket, [json.dumps(message).encode()], descriptors)
        except OSError:
            raise RecordingError("crashed", "the decoder had died") from None
        while True:
            self._socket.settimeout(max(0.01, min(stall_s, ends_at - time.monotonic())))
            reply = self._receive()
            if reply is None:
                stalled = time.monotonic() < ends_at
                reason = f"no progress in {stall_s:g} s" if stalled else f"not decoded in {deadline_s:g} s"
                raise RecordingError("timeout", reason)
            if not reply:
                raise self._death()
            if reply != ALIVE:
                return json.loads(reply)

    def _receive(self) -> bytes | None:
        """The next message; None: none came in time; empty: the process is gone."""
        try:
            return self._socket.recv(MAX_MESSAGE)
        except TimeoutError:
            return None
        except ConnectionError:
            return b""

    def _death(self) -> RecordingError:
        reason = self._end_of_process()
        return RecordingError("timeout" if reason == "SIGXCPU" else "crashed", f"the decoder died ({reason})")

    def _end_of_process(self) -> str:
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        return signal.Signals(-status).name if status < 0 else f"status {status}"

    def end(self) -> None:
        """Kill the process: it holds nothing that must be saved."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
