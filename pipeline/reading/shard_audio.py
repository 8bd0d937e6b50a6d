"""A shard while it is read, and the row of `SHARD_AUDIO` that it becomes."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.engine.audio import SAMPLE_RATE
from pipeline.reading.audio import Decoded
from pipeline.reading.streams import TakenStream
from pipeline.reading.windows import Window
from pipeline.schema import PLAN, SHARD_AUDIO
from pipeline.sources.recording import RecordingError


@dataclass(frozen=True, kw_only=True)
class DecodedRow:
    """The decoded audio of one row of the plan, and what of its recording is left to later rows."""

    audio: Decoded
    start_s: float  # time in the recording
    whole: bool  # false: one part or stream of several
    taken: TakenStream | None = None  # None: all that there is
    rest: tuple[dict[str, Any], ...] = ()

    @property
    def channel_seconds(self) -> float:
        """Seconds of audio in all channels."""
        return self.audio.duration_s * len(self.audio.samples)


class SampleBuffer:
    """Room for the samples of one shard after the other.

    The table of a shard lies in it: while somebody has that, the next one gets a new buffer. To take pages
    from the system anew for each shard costs more than to copy its samples.
    """

    def __init__(self, *, capacity_s: float) -> None:
        self._size = int(capacity_s * SAMPLE_RATE)
        self._memory = np.empty(0, np.int16)
        self._lent: weakref.ref[np.ndarray] | None = None

    def lend(self) -> np.ndarray:
        """A buffer that nobody else has; int16 [time]."""
        if self._lent is None or self._lent() is not None:
            self._memory = np.empty(self._size, np.int16)  # pages are taken when written
        # Views of it refer to this array and not to the memory, since a memoryview stands between the two.
        lent = np.frombuffer(self._memory.data, np.int16)
        self._lent = weakref.ref(lent)
        return lent


class DecodedShard:
    """A shard while it is read; its samples lie in one buffer that the table then takes over."""

    def __init__(self, buffer: np.ndarray) -> None:
        self.overflow: list[dict[str, Any]] = []
        self._recordings: list[dict[str, Any]] = []
        self._windows: list[dict[str, Any]] = []
        self._samples = buffer
        self._num_samples = 0

    def add_failure(self, row: Mapping[str, Any], error: RecordingError) -> None:
        """Add a row that could not be decoded."""
        self._recordings.append(_recording(row, error_type=error.error_type, error_message=str(error)))

    def add(
        self,
        row: Mapping[str, Any],
        stretch: DecodedRow,
        channel: int,
        windows: Sequence[Window],
        *,
        first_channel: int = 0,
    ) -> None:
        """Add one channel of a row: its windows with their samples, at their times in the recording.

        first_channel: the channels of streams before it in the same row.
        """
        audio, taken = stretch.audio, stretch.taken
        for window in windows:
            self._add_window(window, audio.samples[channel], stretch.start_s)
        self._recordings.append(
            _recording(
                row,
                channel=first_channel + channel,
                error_message=_remark(row, audio),
                duration_s=audio.duration_s,
                speech_s=sum(end - start for window in windows for start, end in window.speech),
                scorable=stretch.whole and len(audio.samples) == 1,
                decoded_by=audio.decoded_by,
                partial=audio.partial,
                streams=taken.note if taken else None,
                channel_choice=_choice(taken, audio),
                gain_db=audio.gains_db[channel] if audio.gains_db else None,
                clock_start_s=audio.clock_start_s,
            )
        )

    def _add_window(self, window: Window, samples: np.ndarray, offset_s: float) -> None:
        piece = samples[round(window.start_s * SAMPLE_RATE) : round(window.end_s * SAMPLE_RATE)]
        self._windows.append(
            {
                "recording": len(self._recordings),
                "start_s": offset_s + window.start_s,
                "end_s": offset_s + window.end_s,
                "first_sample": self._num_samples,
                "num_samples": len(piece),
                "speech": [
                    {"start_s": offset_s + start, "end_s": offset_s + end} for start, end in window.speech
                ],
            }
        )
        end = self._num_samples + len(piece)
        if end > len(self._samples):
            self._samples = np.concatenate([self._samples, np.empty(end, np.int16)])
        self._samples[self._num_samples : end] = piece
        self._num_samples = end

    def table(self, shard_id: int, attempt: int) -> pa.Table:
        """The shard as one row of `SHARD_AUDIO`; the samples are not copied."""
        num = self._num_samples
        values = pa.Array.from_buffers(pa.int16(), num, [None, pa.py_buffer(self._samples[:num])])
        samples = pa.LargeListArray.from_arrays(pa.array([0, num], pa.int64()), values)
        rows = {
            "shard_id": shard_id,
            "attempt": attempt,
            "recordings": self._recordings,
            "windows": self._windows,
            "overflow": [{name: row[name] for name in PLAN.names} for row in self.overflow],
        }
        columns = [
            samples.cast(field.type) if field.name == "samples" else pa.array([rows[field.name]], field.type)
            for field in SHARD_AUDIO
        ]
        return pa.table(columns, schema=SHARD_AUDIO)


def _choice(taken: TakenStream | None, audio: Decoded) -> str | None:
    choices = (taken.choice if taken else None, audio.channel_choice)
    return "; ".join(choice for choice in choices if choice) or None


def _remark(row: Mapping[str, Any], audio: Decoded) -> str | None:
    """What is to be said of a row that was read."""
    remarks = []
    if audio.num_bad_samples:
        remarks.append(f"{audio.num_bad_samples} samples are not finite numbers and count as 0")
    if audio.over_hours:
        remarks.append("is longer than --max-hours; what follows is not transcribed")
    return f"{row['uri']}: {'; '.join(remarks)}" if remarks else None


def _recording(row: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """A `READ_RECORDING`; what is not given is what a failed row has."""
    return {
        **{name: row[name] for name in ("recording_id", "uri", "part", "reference", "language", "prompt")},
        "language_guess": row["language_guess"],
        "channel": 0,
        "error_type": None,
        "error_message": None,
        "duration_s": None,
        "speech_s": None,
        "scorable": False,
        "decoded_by": None,
        "partial": False,
        **dict.fromkeys(("streams", "channel_choice", "gain_db", "clock_start_s")),
        **values,
    }
