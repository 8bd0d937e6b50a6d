"""Lines of Lhotse's manifests of recordings and cuts, as lines that any manifest may have.

Source: Lhotse's documentation of `Recording`, `MonoCut` and `SupervisionSegment`, read without Lhotse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.sources.recording import InputError

FILE_SOURCES = ("file", "url")


def is_lhotse(line: Mapping[str, Any]) -> bool:
    """Whether a line of a manifest is one of Lhotse's."""
    return "sources" in line or "tracks" in line or ("recording" in line and "start" in line)


def plain_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """A recording or a cut as {id, path, duration, offset, channel, text}. Raises `InputError`."""
    if "tracks" in line or line.get("type") in ("MixedCut", "PaddingCut"):
        raise InputError(f"a {line.get('type') or 'mixed cut'} is not read, only recordings and plain cuts")
    if "sources" in line:
        return {"id": line.get("id"), "path": _path_of(line), "duration": line.get("duration")}
    recording = line["recording"]
    if not isinstance(recording, Mapping):
        raise InputError("recording is not an object")
    return {
        "id": line.get("id"),
        "path": _path_of(recording),
        "offset": line["start"],
        "duration": line.get("duration"),
        "channel": _channel_of(line, recording),
        "text": _text_of(line.get("supervisions") or []),
    }


def _path_of(recording: Mapping[str, Any]) -> Any:
    sources = recording.get("sources")
    if not isinstance(sources, Sequence) or len(sources) != 1 or not isinstance(sources[0], Mapping):
        raise InputError("a recording of other than one source is not read")
    if sources[0].get("type") not in FILE_SOURCES:
        raise InputError(f"a source of type {sources[0].get('type')!r} is refused, only file and url")
    if recording.get("transforms"):
        raise InputError("a recording with transforms is not read")
    return sources[0].get("source")


def _channel_of(cut: Mapping[str, Any], recording: Mapping[str, Any]) -> int | None:
    """The channel of a cut; None where the cut has all channels of its recording."""
    channel = cut.get("channel")
    available = recording.get("channel_ids") or recording["sources"][0].get("channels") or [0]
    if channel is None or available in (channel, [channel]):
        return None
    if not isinstance(channel, int):
        raise InputError(f"channels {channel!r} of {available!r} are not read, only one or all")
    return channel


def _text_of(supervisions: Sequence[Any]) -> str | None:
    texts = [s.get("text") for s in supervisions if isinstance(s, Mapping)]
    return " ".join(text for text in texts if text) if any(text is not None for text in texts) else None
