"""The parent's side of decoding: one warm child process, replaced after it crashed, hung or swelled."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any, Literal

from pipeline.reading.audio import (
    MAX_TOGETHER,
    AnonymousFile,
    Decoded,
    DecodeLimits,
    DecodeRequest,
    content,
    samples_in,
)
from pipeline.reading.decoder_process import DecoderProcess
from pipeline.sources.opening import OpenRecording
from pipeline.sources.recording import RecordingError

Span = tuple[float, float]
AS_ANSWERED = (
    *("first_byte", "decoded_by", "damaged", "num_bad_samples"),
    *("over_hours", "channel_choice", "clock_start_s"),
)


class AudioDecoder:
    """Decodes recordings in a child process; use it as a context manager.

    The child lives from recording to recording. One that dies, hangs or swells costs the recording it was
    at a `RecordingError`, and is replaced for the next.
    """

    def __init__(self, limits: DecodeLimits | None = None) -> None:
        self.limits = limits or DecodeLimits()
        self._child: DecoderProcess | None = None

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
        source: OpenRecording,
        *,
        offset_s: float = 0.0,
        max_s: float = math.inf,
        channels: Literal["mix", "split"] = "mix",
    ) -> Decoded:
        """Decode at most `max_s` seconds of a recording, from `offset_s` on, to 16 kHz.

        `mix` takes the mean of the channels, `split` keeps them apart. Raises `RecordingError`, with the name
        of the source in its message.
        """
        (outcome,) = self._decode([source], offset_s, max_s, channels)
        if isinstance(outcome, RecordingError):
            raise outcome
        return outcome

    def decode_starts(self, sources: Sequence[OpenRecording], max_s: float) -> list[Decoded | RecordingError]:
        """Decode the first `max_s` seconds of each of at most `MAX_TOGETHER` recordings, channels mixed.

        For short ones it is cheaper than one by one. If the child does not come back, they are decoded one
        by one, so that it costs only the recording that is at fault.
        """
        if not sources:
            return []
        try:
            return self._decode(sources, 0.0, max_s, "mix")
        except RecordingError:
            return [self._decode_start(source, max_s) for source in sources]

    def _decode_start(self, source: OpenRecording, max_s: float) -> Decoded | RecordingError:
        try:
            return self.decode(source, max_s=max_s)
        except RecordingError as error:
            return error.with_traceback(None)  # it would hold this frame

    def speech_spans(self, stretches: Sequence[Decoded]) -> list[list[Span]]:
        """Spans of speech in seconds of each channel of some stretches, one after the other.

        It runs in the child too, whose BLAS has one thread. Raises `RecordingError`.
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
        self,
        sources: Sequence[OpenRecording],
        offset_s: float,
        max_s: float,
        channels: Literal["mix", "split"],
    ) -> list[Decoded | RecordingError]:
        """One request for one stretch of each. Raises `RecordingError` if the child does not come back."""
        requests = [self._request(source, offset_s, max_s, channels) for source in sources]
        recordings = [
            {"start": source.start, "length": source.length, "request": asdict(request)}
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
        self, source: OpenRecording, offset_s: float, max_s: float, channels: Literal["mix", "split"]
    ) -> DecodeRequest:
        """Raises `RecordingError` where a file is too large."""
        limits = self.limits
        if source.length > limits.max_bytes:
            raise RecordingError(
                "too_large", f"{source.name}: has {source.length} bytes, allowed are {limits.max_bytes}"
            )
        return DecodeRequest(
            offset_s=source.from_s + offset_s,
            max_s=min(max_s, _left_s(source, offset_s)),
            split=channels == "split",
            channel=source.channel,
            stream=source.stream,
            limits=replace(limits, max_hours=limits.max_hours + source.from_s / 3600),
        )

    def _ask(
        self, message: dict[str, Any], descriptors: list[int], deadline_s: float, stall_s: float, name: str
    ) -> dict[str, Any]:
        """Ask the child, a new one if need be. Raises `RecordingError` with the name in its message."""
        if self._child is None:
            self._child = DecoderProcess(self.limits)
        try:
            answer = self._child.ask({**message, "cpu_s": deadline_s}, descriptors, deadline_s, stall_s)
        except RecordingError as error:
            self.close()
            raise RecordingError(error.error_type, f"{name}: {error}") from None
        if answer.get("out_of_memory"):
            self.close()
        if "error_type" in answer:
            raise RecordingError(answer["error_type"], f"{name}: {answer['message']}")
        return answer


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
    source: OpenRecording,
    offset_s: float,
    max_s: float,
    outcome: dict[str, Any],
    file: AnonymousFile,
    held: mmap.mmap | bytes,
) -> Decoded | RecordingError:
    """What the child says of a recording, with its samples in the file that it wrote."""
    if "error_type" in outcome:
        return RecordingError(outcome["error_type"], f"{source.name}: {outcome['message']}")
    if source.from_s and not offset_s and not outcome["num_samples"]:
        return RecordingError(
            "no_audio", f"{source.name}: ends before {source.from_s:g} s, where its clip begins"
        )
    place = {name: outcome[name] for name in ("first_byte", "num_samples", "num_channels")}
    return Decoded(
        samples=samples_in(held, **place),
        file=file,
        offset_s=offset_s,
        declared_s=_declared_s(source, outcome["declared_s"]),
        ended=outcome["ended"] or _left_s(source, offset_s) <= max_s,
        gains_db=tuple(outcome["gains_db"]),
        streams=tuple(outcome["streams"]),
        **{name: outcome[name] for name in AS_ANSWERED},
    )


def _left_s(source: OpenRecording, offset_s: float) -> float:
    """Seconds of a clip from there on; infinite for a whole recording."""
    return max(0.0, source.to_s - source.from_s - offset_s)


def _declared_s(source: OpenRecording, of_file_s: float | None) -> float | None:
    """What is declared of the length of a recording, which may be a clip of its file."""
    if math.isfinite(source.to_s):
        return source.to_s - source.from_s
    return None if of_file_s is None else of_file_s - source.from_s
