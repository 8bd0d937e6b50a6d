"""What decoding takes and gives: limits, an open source, a decoded stretch, and the ways to fail."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pipeline.decoding.files import AnonymousFile

SAMPLE_RATE = 16_000  # Hz; everything decoded has it
GIB = 1 << 30

# Between the decoder and its process.
READY, ALIVE = b"ready", b"alive"
MAX_MESSAGE = 1 << 16
MAX_TOGETHER = 32  # recordings of one request

# Every way in which a recording can fail. `missing`, `changed` and `unreadable` are found before decoding.
ERROR_TYPES = (
    *("missing", "changed", "unreadable", "refused", "unsupported", "corrupt", "no_audio", "bad_samples"),
    *("too_long", "too_large", "bad_rate", "too_many_channels", "timeout", "crashed"),
)


class DecodeError(Exception):
    """A recording cannot be decoded; `error_type` is one of `ERROR_TYPES`, the message names the file."""

    def __init__(self, error_type: str, message: str) -> None:
        assert error_type in ERROR_TYPES, error_type
        super().__init__(message)
        self.error_type = error_type


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
class Source:
    """An open recording: bytes `start` to `start + length` of a file; `name` is for messages only.

    A recording may be a clip of what those bytes hold, from `from_s` to `to_s`, or one channel of it.
    """

    name: str
    fd: int
    start: int
    length: int
    from_s: float = 0.0
    to_s: float = math.inf
    channel: int | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """The stretch of a recording that is wanted."""

    offset_s: float = 0.0
    max_s: float = math.inf
    split: bool = False  # channels apart instead of their mean
    channel: int | None = None  # only this one
    max_hours: float = 24.0
    min_rate: int = 2_000
    max_rate: int = 384_000
    max_channels: int = 32


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

    @property
    def duration_s(self) -> float:
        """Decoded seconds."""
        return self.samples.shape[1] / SAMPLE_RATE

    @property
    def partial(self) -> bool:
        """Whether the recording is damaged, or ended before its declared end."""
        return self.damaged or ends_early(self.ended, self.declared_s, self.offset_s + self.duration_s)

    def first(self, seconds: float) -> Decoded:
        """Only the first seconds of the stretch."""
        kept = self.samples[:, : round(seconds * SAMPLE_RATE)]
        return replace(self, samples=kept, ended=self.ended and kept.shape == self.samples.shape)


# Encoders pad: an AAC file may be declared up to 0.1 s longer than it decodes.
MAX_SHORTFALL_S = 0.3


def ends_early(ended: bool, declared_s: float | None, end_s: float) -> bool:
    """Whether a recording that was read to `end_s` should have gone on."""
    return ended and declared_s is not None and end_s + MAX_SHORTFALL_S < declared_s


def one_line(error: BaseException) -> str:
    """An error's message in one line, not too long."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
