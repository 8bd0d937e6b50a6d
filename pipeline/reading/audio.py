"""What decoding takes and gives: limits, a request, decoded audio and the memory that carries it."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.engine.audio import SAMPLE_RATE


class AnonymousFile:
    """A file without a name, in memory where the system has such; closed when nobody has it any more."""

    def __init__(self) -> None:
        self.descriptor = _open()
        weakref.finalize(self, os.close, self.descriptor)


def content(descriptor: int) -> mmap.mmap | bytes:
    """What a file holds, without a copy."""
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if os.fstat(descriptor).st_size else b""


def samples_in(held: mmap.mmap | bytes, first_byte: int, num_samples: int, num_channels: int) -> np.ndarray:
    """Samples as they were written, int16 [channels, time], without a copy."""
    if not num_samples:
        return np.zeros((num_channels, 0), np.int16)
    samples = np.frombuffer(held, np.int16, num_samples * num_channels, first_byte)
    return samples.reshape(num_samples, num_channels).T


def _open() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("earshard-samples")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


GIB = 1 << 30
# Between the decoder and its process.
READY, ALIVE = b"ready", b"alive"
MAX_MESSAGE = 1 << 16
MAX_TOGETHER = 32  # recordings of one request
RUN_UP_S = 0.1


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What one decoding may take: files lie about their length, rate and channels.

    A decoder that shows no progress for `stall_s` is ended, and so is one that takes longer than
    `base_s + audio seconds / min_speed`, by the wall clock or by its CPU time.
    """

    max_hours: float = 24.0
    max_bytes: int = 64 * GIB
    min_rate: int = 2_000  # Hz
    max_rate: int = 384_000
    max_channels: int = 32
    stall_s: float = 60.0
    base_s: float = 120.0
    min_speed: float = 20.0  # seconds of audio per second; 8 channels of 192 kHz FLAC run at 24
    address_space_bytes: int = 2 * GIB
    open_files: int = 64

    def deadline_s(self, audio_s: float) -> float:
        """The most that decoding up to `audio_s` seconds of audio may take."""
        return self.base_s + min(audio_s, self.max_hours * 3600) / self.min_speed


@dataclass(frozen=True, kw_only=True)
class DecodeRequest:
    """The stretch of a recording that is wanted."""

    offset_s: float = 0.0
    max_s: float = math.inf
    split: bool = False  # channels apart instead of their mean
    channel: int | None = None  # only this one
    stream: int = 0  # of the audio streams
    limits: DecodeLimits = field(default_factory=DecodeLimits)

    @property
    def opens_s(self) -> float:
        """Where decoding begins, so that a stretch comes out as in the whole: the resampler needs a run-up.

        At a whole second samples of any rate fall together.
        """
        return max(0.0, math.floor(self.offset_s - RUN_UP_S))

    @classmethod
    def read(cls, message: Mapping[str, Any]) -> DecodeRequest:
        """A request from what `dataclasses.asdict` makes of one."""
        return cls(**{**message, "limits": DecodeLimits(**message["limits"])})


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded stretch of a recording.

    `samples` is int16 [channels, time] at 16 kHz; they lie in `file`, from `first_byte` on, the channels of a
    time side by side. `declared_s` is what the recording says of its whole length, which may be a lie.
    `ended` is true if the recording ended inside the stretch. `damaged` is true if something was lost: bytes
    that the header promises are missing, or the decoder met broken frames.
    """

    samples: np.ndarray
    file: AnonymousFile
    first_byte: int
    offset_s: float
    declared_s: float | None
    ended: bool
    decoded_by: str
    damaged: bool
    num_bad_samples: int  # NaN or infinite; they were replaced by 0
    over_hours: bool = False  # it goes on behind the most hours that are taken
    channel_choice: str | None = None  # which channel was taken in place of the mix, and why
    gains_db: tuple[float, ...] = ()  # by channel, empty: none
    streams: tuple[str, ...] = ()  # what the audio streams are, where there are several
    clock_start_s: float | None = None  # what the container's clock says at 0 s, where it is not 0

    @property
    def duration_s(self) -> float:
        """Decoded seconds."""
        return self.samples.shape[1] / SAMPLE_RATE

    @property
    def partial(self) -> bool:
        """Whether the recording is damaged, too long, or ended before its declared end."""
        return (
            self.damaged
            or self.over_hours
            or ends_early(self.ended, self.declared_s, self.offset_s + self.duration_s)
        )

    def first(self, seconds: float) -> Decoded:
        """Only the first seconds of the stretch."""
        kept = self.samples[:, : round(seconds * SAMPLE_RATE)]
        return replace(self, samples=kept, ended=self.ended and kept.shape == self.samples.shape)


# Encoders pad: an AAC file may be declared up to 0.1 s longer than it decodes.
MAX_SHORTFALL_S = 0.3


def ends_early(ended: bool, declared_s: float | None, end_s: float) -> bool:
    """Whether a recording that was read to `end_s` should have gone on."""
    return ended and declared_s is not None and end_s + MAX_SHORTFALL_S < declared_s
