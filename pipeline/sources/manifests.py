"""Manifests: lines with a path and perhaps a text, a span of time, a channel, a language and a prompt."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pipeline.sources import lhotse
from pipeline.sources.locations import absolute_uri, is_url, size_and_identity
from pipeline.sources.manifest_fields import (
    channel_in,
    id_in,
    language_in,
    path_in,
    seconds_in,
    text_in,
)
from pipeline.sources.recording import MISSING, InputError, Recording, media_rate
from pipeline.wording import counted

MAX_BAD_LINES = 20  # stated in one error
MIN_MILLISECONDS = 100.0  # a number below is taken for seconds, whatever the file's size
T = TypeVar("T")


def list_manifest(location: str, lines: Iterable[tuple[int, Any]]) -> Iterator[Recording]:
    """The recordings that a manifest names.

    Relative paths are relative to the manifest. The id is the line's, else the path as written, with the
    span of time and the channel behind it where the line names them. Raises `InputError` with the numbers of
    all bad lines.
    """
    folder = folder_of(location)
    return good_lines(location, lines, lambda line: _recording(line, folder))


def folder_of(location: str) -> str:
    """The folder that a manifest's relative paths are relative to."""
    return location.rpartition("/")[0] if is_url(location) else os.path.dirname(location)


def good_lines(
    location: str, lines: Iterable[tuple[int, Any]], parse: Callable[[Mapping[str, Any]], T]
) -> Iterator[T]:
    """What `parse` makes of each line. Raises `InputError` with the numbers of all bad lines, at the end."""
    bad: list[str] = []
    for number, line in lines:
        try:
            if isinstance(line, InputError):
                raise line
            yield parse(line)
        except InputError as error:
            bad.append(f"line {number}: {error}")
    if bad:
        shown = "; ".join(bad[:MAX_BAD_LINES])
        raise InputError(f"{location}: {counted(len(bad), 'bad line')}: {shown}")


def _recording(line: Mapping[str, Any], folder: str) -> Recording:
    if lhotse.is_lhotse(line):
        line = lhotse.plain_line(line)
    path = path_in(line)
    uri, size, identity = _found(absolute_uri(path, folder))
    duration_s, offset_s = seconds_in(line, "duration"), seconds_in(line, "offset")
    _refuse_milliseconds(uri, size, duration_s, offset_s)
    member = clip_member(offset_s, duration_s, channel_in(line))
    written = absolute_uri(path, "/") if is_url(path) else path
    return Recording(
        recording_id=id_in(line) or (written if member is None else f"{written}#{member}"),
        uri=uri,
        member=member,
        bytes=size,
        identity=identity,
        duration_s=duration_s,
        reference=text_in(line),
        language=language_in(line),
        prompt=text_in(line, "prompt") or None,
    )


def _found(uri: str) -> tuple[str, int, str]:
    """A file with its size and identity; a name that is there in the other form of Unicode is that file."""
    size, identity = size_and_identity(uri)
    if identity == MISSING and not uri.isascii():
        for form in ("NFC", "NFD"):
            other = unicodedata.normalize(form, uri)
            size, identity = size_and_identity(other)
            if identity != MISSING:
                return other, size, identity
    return uri, size, identity


def _refuse_milliseconds(uri: str, size: int, duration_s: float | None, offset_s: float | None) -> None:
    """Raise `InputError` for times that are whole numbers, too long for the file as seconds, and fit as
    milliseconds."""
    end = (duration_s or 0.0) + (offset_s or 0.0)
    least = media_rate(uri).least
    if size and end >= MIN_MILLISECONDS and end.is_integer() and size / end < least <= size / (end / 1000):
        name = "offset" if duration_s is None else "duration"
        raise InputError(f"{name} is {end:g} for a file of {size} bytes: seconds are read, not milliseconds")


def clip_member(offset_s: float | None, duration_s: float | None, channel: int | None) -> str | None:
    """A span of time or a channel of a file as its `member`, like `t=12.5000,20.0000&channel=1`.

    Without a duration a span goes on to the end, `t=12.5000`. It is written as a media fragment (W3C Media
    Fragments 1.0, section 4.2.1). Raises `InputError` for a span of no length.
    """
    if offset_s is not None and duration_s == 0:
        raise InputError("duration is 0, which leaves nothing behind the offset")
    parts = []
    if offset_s is not None and duration_s is not None:
        parts.append(f"t={offset_s:.4f},{offset_s + duration_s:.4f}")
    elif offset_s:
        parts.append(f"t={offset_s:.4f}")
    if channel is not None:
        parts.append(f"channel={channel}")
    return "&".join(parts) or None


def is_clip(member: str) -> bool:
    """Whether a `member` is one that `clip_member` made, and not a name or a row in a container."""
    return re.fullmatch(r"t=[\d.]+(,[\d.]+)?(&channel=\d+)?|channel=\d+", member) is not None


def parse_clip(member: str) -> tuple[float, float, int | None]:
    """Start, end (seconds, infinite where it is open) and channel of a `member` that `clip_member` made."""
    values = dict(part.split("=", 1) for part in member.split("&"))
    start, _, end = values.get("t", "0").partition(",")
    return float(start), float(end or math.inf), int(values["channel"]) if "channel" in values else None
