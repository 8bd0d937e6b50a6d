"""Opening what a plan names: the bytes of a recording as a range of an open file."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from stat import S_ISREG
from typing import Any, TypeVar

from pipeline.errors import is_transient, one_line, with_back_off
from pipeline.sources.boundaries import private_address_in
from pipeline.sources.locations import (
    check_stored,
    filesystem,
    info_identity,
    is_missing,
    local_path,
    printable,
    stat_identity,
)
from pipeline.sources.manifests import parse_clip
from pipeline.sources.recording import MISSING, REFUSED, UNKNOWN, InputError, RecordingError, extension

COPY_BYTES = 1 << 22
T = TypeVar("T")


@contextmanager
def open_row(row: Mapping[str, Any], *, max_bytes: int) -> Iterator[OpenRecording]:
    """Open the recording that a row of the plan names.

    A remote file is copied to an unnamed local one first, at most `max_bytes` of it; of a remote archive
    only the member is. Transient errors are retried three times with back-off. Raises `RecordingError`:
    `missing`, `changed`, `refused`, `unreadable`, `too_large`.
    """
    uri, member = row["uri"], row["member"]
    name = printable(uri if member is None else f"{uri}: {member}")
    try:
        check_stored(uri)
    except InputError as error:
        raise RecordingError("refused", str(error)) from None
    if row["identity"] == REFUSED:
        raise RecordingError("refused", f"{name}: is a link, a device or a name that leads elsewhere")
    place = _place_of(row)
    file = with_retries(lambda: _open(place, max_bytes), name)
    try:
        yield _source(name, file, place)
    finally:
        os.close(file)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """What a row of the plan says of where its bytes are."""

    uri: str
    member: str | None
    identity: str  # of the file
    start: int | None = None  # of a member of an archive
    length: int | None = None


def _place_of(row: Mapping[str, Any]) -> _Place:
    identity, at, offset = row["identity"].partition("@")
    if not at:
        return _Place(uri=row["uri"], member=row["member"], identity=identity)
    return _Place(
        uri=row["uri"], member=row["member"], identity=identity, start=int(offset), length=row["bytes"]
    )


def _source(name: str, file: int, place: _Place) -> OpenRecording:
    size = os.fstat(file).st_size
    if place.start is not None and place.length is not None:
        start = place.start if local_path(place.uri) is not None else 0
        return OpenRecording(name=name, fd=file, start=start, length=place.length)
    if place.member is None or _is_embedded(place):
        return OpenRecording(name=name, fd=file, start=0, length=size)
    from_s, to_s, channel = parse_clip(place.member)
    return OpenRecording(name=name, fd=file, start=0, length=size, from_s=from_s, to_s=to_s, channel=channel)


def _is_embedded(place: _Place) -> bool:
    return place.member is not None and extension(place.uri) == "parquet"


def with_retries(call: Callable[[], T], name: str) -> T:
    """Call until it succeeds, at most four times. Raises `RecordingError` for what is no transient error."""
    try:
        return with_back_off(call, may_pass=_may_pass)
    except RecordingError:
        raise
    except Exception as error:  # every remote file system has errors of its own
        if (refusal := private_address_in(error)) is not None:
            raise RecordingError("refused", f"{name}: {refusal}") from None
        if is_missing(error):
            raise RecordingError("missing", f"{name}: no such file") from error
        raise _unreadable(name, error) from error


def _may_pass(error: Exception) -> bool:
    if is_missing(error) or private_address_in(error) is not None:
        return False
    # A server out of reach is a missing file to `fsspec`, see `is_missing`.
    return isinstance(error, FileNotFoundError) or is_transient(error)


def _unreadable(name: str, error: Exception) -> RecordingError:
    return RecordingError("unreadable", f"{name}: {one_line(error)}")


def _open(place: _Place, max_bytes: int) -> int:
    """A descriptor of the file, or of a copy without a name."""
    path = local_path(place.uri)
    if path is None or _is_embedded(place):
        return _copy(place, max_bytes)
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        stat = os.fstat(file)
        if not S_ISREG(stat.st_mode):
            raise RecordingError("unreadable", f"{place.uri}: is no regular file")
        _check_identity(place, stat_identity(stat))
    except BaseException:
        os.close(file)
        raise
    return file


def _check_identity(place: _Place, found: str) -> None:
    if place.identity == UNKNOWN:
        return
    if place.identity == MISSING:
        raise RecordingError("changed", f"{place.uri}: was missing when the job was planned")
    if place.identity != found:
        raise RecordingError("changed", f"{place.uri}: has changed since the job was planned")


def _copy(place: _Place, max_bytes: int) -> int:
    """Copy a remote file, or what is inside a file, to an unnamed local one."""
    path = local_path(place.uri)
    with tempfile.TemporaryFile() as copy:
        if path is not None:
            _check_identity(place, stat_identity(os.stat(path)))
            copy.write(_embedded(place))
        else:
            files = filesystem(place.uri)
            info = files.info(place.uri)
            _check_identity(place, info_identity(info))
            for data in _embedded_or_fetched(place, files, info.get("size")):
                copy.write(data)
                if copy.tell() > max_bytes:
                    raise RecordingError("too_large", f"{place.uri}: has more than {max_bytes} bytes")
        copy.flush()
        return os.dup(copy.fileno())


def _embedded(place: _Place) -> bytes:
    from pipeline.sources.parquet import read_embedded

    assert place.member is not None
    return read_embedded(place.uri, place.member)


def _embedded_or_fetched(place: _Place, files: Any, size: int | None) -> Iterator[bytes]:
    """The bytes of a remote recording. Raises `ConnectionError` if fewer come than there should be."""
    if _is_embedded(place):
        yield _embedded(place)
        return
    first, expected = place.start or 0, size if place.length is None else place.length
    num_bytes = 0
    with files.open(place.uri, "rb", cache_type="readahead", block_size=COPY_BYTES) as remote:
        if first:
            remote.seek(first)
        while data := remote.read(COPY_BYTES if expected is None else min(COPY_BYTES, expected - num_bytes)):
            num_bytes += len(data)
            yield data
    if expected is not None and num_bytes != expected:
        raise ConnectionError(f"{num_bytes} of {expected} bytes came")


@dataclass(frozen=True, kw_only=True)
class OpenRecording:
    """An open recording: bytes `start` to `start + length` of a file; `name` is for messages only.

    A recording may be a clip of what those bytes hold, from `from_s` to `to_s`, one channel or audio stream.
    """

    name: str
    fd: int
    start: int
    length: int
    from_s: float = 0.0
    to_s: float = math.inf
    channel: int | None = None
    stream: int = 0  # of the audio streams that can be decoded
