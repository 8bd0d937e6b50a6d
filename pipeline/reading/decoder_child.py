"""What the decoder's process runs: one request after the other over a socket, until it is closed.

A request is one JSON message with file descriptors, the file for the output and the inputs: recordings and
their samples, or files of such samples and where there is speech in them. The answer is one JSON object,
after a sign of life now and then. Nothing here opens a name.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from pipeline.errors import one_line
from pipeline.reading.audio import ALIVE, MAX_MESSAGE, MAX_TOGETHER, READY, DecodeRequest, content, samples_in
from pipeline.reading.blocks import Block, Stream, open_range
from pipeline.reading.containers import Container, sniff
from pipeline.reading.lengths import is_cut_short
from pipeline.reading.level import AS_IT_IS, Adjustment, adjusted
from pipeline.reading.pyav_reader import PyavReader
from pipeline.reading.resampling import Conversion
from pipeline.reading.soundfile_reader import open_soundfile
from pipeline.reading.voice_activity import VoiceActivity
from pipeline.sources.recording import RecordingError

OUT_OF_MEMORY = "needs more memory than decoding may take"
PROGRESS_S = 1.0
# The model's threads have all cores, and a core that it shares with an equal slows all of them down. Reading
# takes a hundredth of a model's time, so that a tenth of a core is enough.
NICENESS = 10
MAX_PASSES = 4  # the mix, a channel, a gain, and that gain set right
FINAL = ("bad_rate", "too_many_channels", "bad_samples")  # another decoder would say the same

Progress = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class BackendResult:
    """What one decoder made of a stretch; its samples are bytes of the output from `first_byte` on."""

    decoded_by: str
    first_byte: int
    num_samples: int
    num_channels: int
    num_bad_samples: int
    declared_s: float | None
    ended: bool
    damaged: bool
    failure: RecordingError | None
    over_hours: bool
    channel_choice: str | None
    gains_db: tuple[float, ...]
    clock_start_s: float | None
    streams: tuple[str, ...]


def main() -> None:
    """Serve requests on the socket whose descriptor is the first argument."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    os.nice(NICENESS)
    for number in (signal.SIGTERM, signal.SIGINT):  # sent to a whole group, it is the parent's to answer
        signal.signal(number, signal.SIG_IGN)
    _limit_process(**json.loads(sys.argv[2]))
    _warm_up()
    # libmpg123 writes a line for every broken frame, and a parent that has ended is no news.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    connection.send(READY)
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE, 1 + MAX_TOGETHER)
        if not message:
            return
        answer = _answer(json.loads(message), descriptors, _Heartbeat(connection))
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(json.dumps(answer).encode())
        if answer.get("out_of_memory"):
            return


def _limit_process(address_space_bytes: int, open_files: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes, address_space_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _warm_up() -> None:
    import av
    import soundfile
    import soxr

    av.logging.set_level(None)
    assert soundfile.__libsndfile_version__
    assert soxr.__version__


class _Heartbeat:
    """Tells the parent now and then that decoding goes on."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._last = connection, time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._last >= PROGRESS_S:
            self._last = now
            self._connection.send(ALIVE)


def _answer(message: dict[str, Any], descriptors: list[int], progress: Progress) -> dict[str, Any]:
    output, *inputs = descriptors
    cpu_s = math.ceil(time.process_time() + message["cpu_s"])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    try:
        if "speech_in" in message:
            return _find_speech(inputs, message["speech_in"], output)
        recordings = zip(inputs, message["recordings"], strict=True)
        return {"outcomes": [_outcome(source, wanted, output, progress) for source, wanted in recordings]}
    except MemoryError:
        return {**_failure("crashed", OUT_OF_MEMORY), "out_of_memory": True}
    except Exception as error:  # of voice activity
        return _failure("corrupt", f"{type(error).__name__}: {one_line(error)}")


def _outcome(source: int, wanted: dict[str, Any], output: int, progress: Progress) -> dict[str, Any]:
    """What became of one recording."""
    try:
        best = decode(
            source, wanted["start"], wanted["length"], DecodeRequest.read(wanted["request"]), output, progress
        )
    except RecordingError as error:
        return _failure(error.error_type, str(error))
    except MemoryError:
        raise
    except Exception as error:  # a decoder's own error that it does not document; the file is at fault
        return _failure("corrupt", f"{type(error).__name__}: {one_line(error)}")
    return {name: getattr(best, name) for name in OUTCOME}


def _failure(error_type: str, message: str) -> dict[str, Any]:
    return {"error_type": error_type, "message": message}


def _find_speech(inputs: list[int], places: list[list[int]], output: int) -> dict[str, Any]:
    """Spans of speech in each channel of some stretches, written as JSON.

    places: of each stretch the number of its input, its first byte, its samples and its channels.
    """
    held = [content(descriptor) for descriptor in inputs]
    channels = [samples for number, *place in places for samples in samples_in(held[number], *place)]
    _write(output, json.dumps(_voice_activity().speech_spans(channels)).encode())
    return {}


@cache
def _voice_activity() -> VoiceActivity:
    return VoiceActivity()


OUTCOME = (
    *("decoded_by", "first_byte", "num_samples", "num_channels"),
    *("num_bad_samples", "declared_s", "ended", "damaged"),
    *("over_hours", "channel_choice", "gains_db", "clock_start_s", "streams"),
)


def decode(
    source: int, start: int, length: int, request: DecodeRequest, output: int, progress: Progress
) -> BackendResult:
    """Decode by soundfile, and by PyAV where that fails. Raises `RecordingError` if neither gets anything."""
    file = open_range(source, start, length)
    container = sniff(file, length)
    attempts: list[BackendResult] = []
    for open_stream in _decoders(source, start, length, container, request):
        attempts.append(_settled(open_stream, request, output, progress))
        if attempts[-1].failure is None:
            break
        if attempts[-1].failure.error_type in FINAL:
            raise attempts[-1].failure
    best = max(attempts, key=lambda attempt: (attempt.failure is None, attempt.num_samples))
    if best.failure is not None and not best.num_samples:
        raise attempts[-1].failure or best.failure
    damaged = any(attempt.damaged for attempt in attempts) or is_cut_short(file, length, container)
    if damaged and not best.num_samples and request.offset_s == 0:
        raise RecordingError("corrupt", "holds no samples that can be decoded")
    return replace(best, damaged=damaged)


def _decoders(
    source: int, start: int, length: int, container: Container, request: DecodeRequest
) -> Iterator[Callable[[], tuple[Stream, Callable[[], int]]]]:
    """The ways to open a recording, best first; each gives a stream and what counts its broken packets."""

    def by_soundfile() -> tuple[Stream, Callable[[], int]]:
        run_up_s = request.offset_s - request.opens_s
        return open_soundfile(
            source, start, length, container, request.opens_s, request.max_s + run_up_s
        ), lambda: 0

    def by_pyav() -> tuple[Stream, Callable[[], int]]:
        reader = PyavReader(source, start, length, container, request.stream)
        return reader.stream(request.opens_s), lambda: reader.num_broken

    if container.by_soundfile and request.stream == 0:
        yield by_soundfile
    yield by_pyav


Opening = Callable[[], tuple[Stream, Callable[[], int]]]


def _settled(open_stream: Opening, request: DecodeRequest, output: int, progress: Progress) -> BackendResult:
    """Run one decoder, again where its channels cancel or its level is far from any that is heard."""
    adjustment = AS_IT_IS
    first_byte = os.lseek(output, 0, os.SEEK_END)
    for _ in range(MAX_PASSES):
        os.ftruncate(output, first_byte)
        conversion, result = _attempt(open_stream, request, adjustment, output, progress)
        if not result.num_samples:
            break
        held = content(output)
        samples = samples_in(held, first_byte, result.num_samples, result.num_channels)
        peaks = conversion.peaks if len(conversion.peaks) else np.zeros(result.num_channels)
        better = adjusted(adjustment, samples, peaks, conversion.energy.loudest)
        del samples, held
        if better is None:
            break
        adjustment = better
    return result


def _attempt(
    open_stream: Opening, request: DecodeRequest, adjustment: Adjustment, output: int, progress: Progress
) -> tuple[Conversion, BackendResult]:
    """Run one decoder; what it wrote before it failed is kept."""
    conversion = Conversion(request, adjustment)
    first_byte = os.lseek(output, 0, os.SEEK_END)
    stream: Stream | None = None
    failure, num_broken = None, 0
    try:
        stream, count_broken = open_stream()
        for samples in conversion.convert(_with_progress(stream, progress)):
            _write(output, samples.tobytes())
        num_broken = count_broken()
    except RecordingError as error:
        failure = error
    was_read = failure is not None and failure.error_type == "corrupt" and stream is not None
    return conversion, BackendResult(
        decoded_by=stream.decoded_by if stream else "",
        first_byte=first_byte,
        num_samples=conversion.num_samples,
        num_channels=conversion.num_channels or 1,
        num_bad_samples=conversion.num_bad_samples,
        declared_s=stream.declared_s if stream else None,
        ended=conversion.ended or failure is not None,
        damaged=num_broken > 0 or was_read,
        failure=failure,
        over_hours=conversion.over_hours,
        channel_choice=adjustment.choice,
        gains_db=adjustment.gains_db,
        clock_start_s=stream.clock_start_s if stream else None,
        streams=stream.names if stream else (),
    )


def _with_progress(stream: Stream, progress: Progress) -> Stream:
    def blocks() -> Iterator[Block]:
        for block in stream.blocks:
            progress()
            yield block

    return replace(stream, blocks=blocks())


def _write(output: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(output, view) :]


if __name__ == "__main__":
    main()
