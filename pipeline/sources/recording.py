"""A recording as it is found, before anything of it is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

MEDIA_EXTENSIONS = frozenset(
    [
        *("aac", "aif", "aifc", "aiff", "amr", "au", "caf", "flac", "m4a", "m4b", "mka", "mp1", "mp2", "mp3"),
        *("nist", "oga", "ogg", "opus", "snd", "sph", "voc", "w64", "wav", "wma"),
        *("3gp", "m4v", "mkv", "mov", "mp4", "webm"),
    ]
)
MISSING = "missing"  # identity of a file that was not there when the job was planned
REFUSED = "refused"  # identity of a member of an archive that is never opened
UNKNOWN = "unknown"  # identity of a file that could not be asked about


class InputError(ValueError):
    """An input cannot be taken as it is; one line that names it, and the line in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """Something to transcribe.

    `recording_id` is unique in a job and stays the same when the job is planned again. `uri` is an absolute
    path, or a URL without user, query and fragment. `member` is the place inside the file (a tar member, the
    row of a Parquet file, a span of time), or None for the file itself. `bytes` may be an estimate inside a
    container. `duration_s` is what a manifest says.
    """

    recording_id: str
    uri: str
    member: str | None = None
    bytes: int
    identity: str
    duration_s: float | None = None
    reference: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The recordings of the inputs, found while they are taken; `skipped` is complete when all were."""

    recordings: Iterator[Recording]
    skipped: list[str] = field(default_factory=list)  # files without a media extension


def extension(name: str) -> str:
    """The extension of a name in lower case, without the dot; "" if it has none."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return end.lower() if dot and stem else ""


def is_media(name: str) -> bool:
    """Whether a file is taken from a folder by its name."""
    return extension(name) in MEDIA_EXTENSIONS


# Every way in which a recording can fail. `missing`, `changed` and `unreadable` are found before decoding.
ERROR_TYPES = (
    *("missing", "changed", "unreadable", "refused", "unsupported", "corrupt", "no_audio", "bad_samples"),
    *("too_long", "too_large", "bad_rate", "too_many_channels", "timeout", "crashed"),
)


class RecordingError(Exception):
    """A recording cannot be decoded; `error_type` is one of `ERROR_TYPES`, the message names the file."""

    def __init__(self, error_type: str, message: str) -> None:
        assert error_type in ERROR_TYPES, error_type
        super().__init__(message)
        self.error_type = error_type
