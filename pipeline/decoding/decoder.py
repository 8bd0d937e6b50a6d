"""The parent's side of decoding: one warm child process, replaced after it crashed, hung or swelled."""

from __future__ import annotations

import json
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pipeline.decoding.files import AnonymousFile, content, samples_in
from pipeline.decoding.types import (
    ALIVE,
    MAX_MESSAGE,
    MAX_TOGETHER,
    READY,
    Decoded,
    DecodeError,
    DecodeLimits,
    Request,
    Source,
)

START_S = 120.0  # the child imports numpy, soundfile, PyAV and soxr: 0.5 s, minutes on a starved machine
CODE_ROOT = Path(__file__).parents[2]

# One thread, or BLAS spins on small products. glibc keeps what numpy frees: taking its pages anew costs
# 1.5 CPU-s for an hour of voice activity.
CHILD_SETTINGS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "MALLOC_MMAP_THRESHOLD_": str(128 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
}

Span = tuple[float, float]


class AudioDecoder:
    """Decodes recordings in a child process; use it as a context manager.

    The child lives from recording to recording. One that dies, hangs or swells costs the recording it was
    at a `DecodeError`, and is replaced for the next.
    """

    def __init__(self, limits: DecodeLimits | None = None) -> None:
        self.limits = limits or DecodeLimits()
        self._child: _Child | None = None

    def __enter__(self) -> AudioDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def decode(
        self,
        source: Source,
        *,
        offset_s: float = 0.0,
        max_s: float = math.inf,
        channels: Literal["mix", "split"] = "mix",
    ) -> Decoded:
        """Decode at most `max_s` seconds of a recording, from `offset_s` on, to 16 kHz.

        `mix` takes the mean of the channels, `split` keeps them apart. Raises `DecodeError`, with the name
        of the source in its message.
        """
        (outcome,) = self._decode([source], offset_s, max_s, channels)
        if isinstance(outcome, DecodeError):
            raise outcome
        return outcome

    def decode_starts(self, sources: Sequence[Source], max_s: float) -> list[Decoded | DecodeError]:
        """Decode the first `max_s` seconds of each of at most `MAX_TOGETHER` recordings, channels mixed.

        For short ones it is cheaper than one by one. If the child does not come back, they are decoded one
        by one, so that it costs only the recording that is at fault.
        """
        if not sources:
            return []
        try:
            return self._decode(sources, 0.0, max_s, "mix")
        except DecodeError:
            return [self._decode_start(source, max_s) for source in sources]

    def _decode_start(self, source: Source, max_s: float) -> Decoded | DecodeError:
        try:
            return self.decode(source, max_s=max_s)
        except DecodeError as error:
            return error.with_traceback(None)  # it would hold this frame

    def speech_spans(self, stretches: Sequence[Decoded]) -> list[list[Span]]:
        """Spans of speech in seconds of each channel of some stretches, one after the other.

        It runs in the child too, whose BLAS has one thread. Raises `DecodeError`.
        """
        spans: list[list[Span]] = []
        for group in _in_few_files(stretches):
            spans += self._speech_spans(group)
        return spans

    def _speech_spans(self, stretches: Sequence[Decoded]) -> list[list[Span]]:
        files = {id(stretch.file): stretch.file for stretch in stretches}
        numbers = {key: number for number, key in enumerate(files)}
        places = [
            (numbers[id(stretch.file)], stretch.first_byte, stretch.samples.shape[1], len(stretch.samples))
            for stretch in stretches
        ]
        deadline_s = self.limits.deadline_s(sum(s.duration_s * len(s.samples) for s in stretches))
        output = AnonymousFile()
        descriptors = [output.descriptor, *(file.descriptor for file in files.values())]
        self._ask({"speech_in": places}, descriptors, deadline_s, deadline_s, "voice activity")
        found = json.loads(bytes(content(output.descriptor)))
        return [[(start, end) for start, end in spans] for spans in found]

    def _decode(
        self, sources: Sequence[Source], offset_s: float, max_s: float, channels: Literal["mix", "split"]
    ) -> list[Decoded | DecodeError]:
        """One request for one stretch of each. Raises `DecodeError` if the child does not come back."""
        requests = [self._request(source, offset_s, max_s, channels) for source in sources]
        recordings = [
            {"start": source.start, "length": source.length, "request": vars(request)}
            for source, request in zip(sources, requests, strict=True)
        ]
        deadline_s = self.limits.deadline_s(sum(request.offset_s + request.max_s for request in requests))
        output = AnonymousFile()
        descriptors = [output.descriptor, *(source.fd for source in sources)]
        answer = self._ask(
            {"recordings": recordings}, descriptors, deadline_s, self.limits.stall_s, sources[0].name
        )
        held = content(output.descriptor)
        return [
            _decoded(source, offset_s, max_s, outcome, output, held)
            for source, outcome in zip(sources, answer["outcomes"], strict=True)
        ]

    def _request(
        self, source: Source, offset_s: float, max_s: float, channels: Literal["mix", "split"]
    ) -> Request:
        """Raises `DecodeError` where a file is too large."""
        limits = self.limits
        if source.length > limits.max_bytes:
            raise DecodeError(
                "too_large", f"{source.name}: has {source.length} bytes, allowed are {limits.max_bytes}"
            )
        return Request(
            offset_s=source.from_s + offset_s,
            max_s=min(max_s, _left_s(source, offset_s)),
            split=channels == "split",
            channel=source.channel,
            max_hours=limits.max_hours + source.from_s / 3600,
            min_rate=limits.min_rate,
            max_rate=limits.max_rate,
            max_channels=limits.max_channels,
        )

    def _ask(
        self, message: dict[str, Any], descriptors: list[int], deadline_s: float, stall_s: float, name: str
    ) -> dict[str, Any]:
        """Ask the child, a new one if need be. Raises `DecodeError` with the name in its message."""
        if self._child is None:
            self._child = _Child(self.limits)
        try:
            answer = self._child.ask({**message, "cpu_s": deadline_s}, descriptors, deadline_s, stall_s)
        except DecodeError as error:
            self.close()
            raise DecodeError(error.error_type, f"{name}: {error}") from None
        if answer.get("out_of_memory"):
            self.close()
        if "error_type" in answer:
            raise DecodeError(answer["error_type"], f"{name}: {answer['message']}")
        return answer


class _Child:
    """A process that runs `pipeline.decoding.child`."""

    def __init__(self, limits: DecodeLimits) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(filter(None, (str(CODE_ROOT), os.environ.get("PYTHONPATH"))))
        process_limits = json.dumps(
            {"address_space_bytes": limits.address_space_bytes, "open_files": limits.open_files}
        )
        command = [sys.executable, "-m", "pipeline.decoding.child", str(theirs.fileno()), process_limits]
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
        """Send a request and wait for its answer. Raises `DecodeError` `timeout` or `crashed`."""
        ends_at = time.monotonic() + deadline_s
        try:
            socket.send_fds(self._socket, [json.dumps(message).encode()], descriptors)
        except OSError:
            raise DecodeError("crashed", "the decoder had died") from None
        while True:
            self._socket.settimeout(max(0.01, min(stall_s, ends_at - time.monotonic())))
            reply = self._receive()
            if reply is None:
                stalled = time.monotonic() < ends_at
                reason = f"no progress in {stall_s:g} s" if stalled else f"not decoded in {deadline_s:g} s"
                raise DecodeError("timeout", reason)
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

    def _death(self) -> DecodeError:
        reason = self._end_of_process()
        return DecodeError("timeout" if reason == "SIGXCPU" else "crashed", f"the decoder died ({reason})")

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


def _in_few_files(stretches: Sequence[Decoded]) -> Iterator[list[Decoded]]:
    """Stretches in groups whose samples lie in at most `MAX_TOGETHER` files."""
    group: list[Decoded] = []
    files: set[int] = set()
    for stretch in stretches:
        if len(files | {id(stretch.file)}) > MAX_TOGETHER:
            yield group
            group, files = [], set()
        group.append(stretch)
        files.add(id(stretch.file))
    if group:
        yield group


def _decoded(
    source: Source,
    offset_s: float,
    max_s: float,
    outcome: dict[str, Any],
    file: AnonymousFile,
    held: mmap.mmap | bytes,
) -> Decoded | DecodeError:
    """What the child says of a recording, with its samples in the file that it wrote."""
    if "error_type" in outcome:
        return DecodeError(outcome["error_type"], f"{source.name}: {outcome['message']}")
    place = {name: outcome[name] for name in ("first_byte", "num_samples", "num_channels")}
    return Decoded(
        samples=samples_in(held, **place),
        file=file,
        offset_s=offset_s,
        declared_s=_declared_s(source, outcome["declared_s"]),
        ended=outcome["ended"] or _left_s(source, offset_s) <= max_s,
        **{name: outcome[name] for name in ("first_byte", "decoded_by", "damaged", "num_bad_samples")},
    )


def _left_s(source: Source, offset_s: float) -> float:
    """Seconds of a clip from there on; infinite for a whole recording."""
    return max(0.0, source.to_s - source.from_s - offset_s)


def _declared_s(source: Source, of_file_s: float | None) -> float | None:
    """What is declared of the length of a recording, which may be a clip of its file."""
    if math.isfinite(source.to_s):
        return source.to_s - source.from_s
    return None if of_file_s is None else of_file_s - source.from_s
