"""A recording as it is found, before anything of it is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.errors import UserError


@dataclass(frozen=True)
class MediaRate:
    """Bytes of a second of audio: what archives of speech commonly have, and the least, silence too."""

    typical: float
    least: float


# The extensions by which a file is taken from a folder, and the rates by which the length of such a recording
# is estimated where nothing says it: 16 kHz mono 16 bit for samples, the usual rates of speech for the rest.
# Wrong guesses cost time only: a shard that decodes to more than twice its size runs over into the next one.
MEDIA_RATES = {
    extension: rate
    for extensions, rate in (
        ("wav wave bwf rf64 aif aiff aifc caf w64 sph nist", MediaRate(32_000, 1_000)),
        ("au snd voc", MediaRate(8_000, 1_000)),
        ("dsf", MediaRate(350_000, 1_000)),
        ("flac wv tta", MediaRate(16_000, 40)),
        ("mp3 mp2 mp1 mpa mpga m4a m4b aac wma ac3 eac3 ec3 dts", MediaRate(8_000, 60)),
        ("ogg oga ogx mka spx", MediaRate(6_000, 20)),
        ("opus amr awb 3ga weba gsm", MediaRate(3_000, 20)),
        ("mp4 mov qt m4v mkv webm 3gp 3g2 f4v ogv", MediaRate(60_000, 200)),
        ("avi divx flv mpg mpeg vob ts m2t m2ts mts mxf wmv asf rm rmvb ra", MediaRate(60_000, 200)),
    )
    for extension in extensions.split()
}
OTHER_RATE = MediaRate(16_000, 60)
MISSING = "missing"  # identity of a file that was not there when the job was planned
REFUSED = "refused"  # identity of a member of an archive that is never opened
UNKNOWN = "unknown"  # identity of a file that could not be asked about


class InputError(UserError):
    """An input cannot be taken as it is; one line that names it, and the line in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """Something to transcribe.

    `recording_id` is unique in a job and stays the same when the job is planned again. `uri` is an absolute
    path, or a URL without user, query and fragment. `member` is the place inside the file (a tar member, the
    row of a Parquet file, a span of time), or None for the file itself. `bytes` may be an estimate inside a
    container. `duration_s`, `reference`, `language` and `prompt` are what a manifest says.
    """

    recording_id: str
    uri: str
    member: str | None = None
    bytes: int
    identity: str
    duration_s: float | None = None
    reference: str | None = None
    language: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The recordings of the inputs, found while they are taken; the lists are complete when all were."""

    recordings: Iterator[Recording]
    skipped: list[str] = field(default_factory=list)  # files without a media extension
    passed_over: list[str] = field(default_factory=list)  # what systems leave behind, the job's own output


def extension(name: str) -> str:
    """The extension of a name in lower case, without the dot; "" if it has none."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return end.lower() if dot and stem else ""


def is_media(name: str) -> bool:
    """Whether a file is taken from a folder by its name."""
    return extension(name) in MEDIA_RATES


def media_rate(name: str, member: str | None = None) -> MediaRate:
    """Bytes of a second of audio, by the extension of a file or of a member of it."""
    return MEDIA_RATES.get(extension(member or "")) or MEDIA_RATES.get(extension(name)) or OTHER_RATE


# Every way in which a recording can fail. `internal_error` alone is no `RecordingError`: it is what was
# raised in three attempts that did not come back.
ERROR_TYPES = (
    *("missing", "changed", "unreadable", "refused", "unsupported", "corrupt", "no_audio", "bad_samples"),
    *("too_large", "bad_rate", "too_many_channels", "timeout", "crashed", "internal_error"),
)
# Those that lie in the moment and not in the recording: such a row may succeed when it is run again as it is.
PASSING = frozenset({"missing", "changed", "unreadable"})


class RecordingError(Exception):
    """A recording cannot be decoded; `error_type` is one of `ERROR_TYPES`, the message names the file."""

    def __init__(self, error_type: str, message: str) -> None:
        assert error_type in ERROR_TYPES, error_type
        super().__init__(message)
        self.error_type = error_type
