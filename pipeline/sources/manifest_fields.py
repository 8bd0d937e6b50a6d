"""The fields of a manifest's line: the names that each may have, in every format, and what it may hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.sources.recording import InputError

# In every format; capitals and spaces around a name do not matter. Where a line has two names of one field,
# the earlier one here counts.
FIELD_NAMES = {
    "id": ("id", "recording_id"),
    "path": ("audio_filepath", "audio", "path", "uri", "file", "file_name"),
    "text": ("text", "sentence", "transcription", "transcript", "normalized_text"),
    "offset": ("offset",),
    "duration": ("duration",),
    "channel": ("channel",),
    "language": ("language", "lang"),
    "prompt": ("prompt",),
}
# ISO 639's codes for an undetermined language, none at all, several, and one that has no code.
NO_LANGUAGE = ("", "auto", "und", "zxx", "mul", "mis")
ALL_NAMES = frozenset(name for names in FIELD_NAMES.values() for name in names)


def plain_name(name: str) -> str:
    """A field's name as it is looked up."""
    return name.strip().casefold()


def values_of(line: Mapping[str, Any], field: str) -> Iterator[tuple[str, Any]]:
    """The names and values that a line has for a field, null left out, in the order of `FIELD_NAMES`."""
    return ((name, line[name]) for name in FIELD_NAMES[field] if line.get(name) is not None)


def path_in(line: Mapping[str, Any]) -> str:
    """The location of a line's audio; `{"path": …}` is one too, as Hugging Face's datasets have it.

    Raises `InputError` if there is none.
    """
    for name, value in values_of(line, "path"):
        inner = value.get("path") if isinstance(value, Mapping) else value
        if not isinstance(inner, str) or not inner:
            raise InputError(f"{name} is {shown(value)}, not a path")
        return _valid(inner)
    raise InputError(f"has none of {', '.join(FIELD_NAMES['path'])}")


def text_in(line: Mapping[str, Any], field: str = "text") -> str | None:
    """The text of a field, "" where it is empty. Raises `InputError` if it is something else."""
    for name, value in values_of(line, field):
        if not isinstance(value, str):
            raise InputError(f"{name} is {shown(value)}, not text")
        return _valid(value)
    return None


def id_in(line: Mapping[str, Any]) -> str | None:
    """The name that a line gives its recording. Raises `InputError` if it is something else."""
    for name, value in values_of(line, "id"):
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            raise InputError(f"{name} is {shown(value)}, not a name")
        return _valid(str(value))
    return None


def seconds_in(line: Mapping[str, Any], field: str) -> float | None:
    """`offset` or `duration`. Raises `InputError` if it is no number, or below 0."""
    for name, value in values_of(line, field):
        if value == "":
            return None
        number = _number(value)
        if not 0 <= number < math.inf:
            raise InputError(f"{name} is {shown(value)}, not a number from 0 on")
        return number
    return None


def channel_in(line: Mapping[str, Any]) -> int | None:
    """The channel of a line, from 0: a number, a text or a list of one. Raises `InputError` for others."""
    for name, value in values_of(line, "channel"):
        if value == "":
            return None
        number = _number(_only_item(value))
        if not (0 <= number < 1 << 16 and number == int(number)):
            raise InputError(f"{name} is {shown(value)}, not the number of one channel, from 0 on")
        return int(number)
    return None


def language_in(line: Mapping[str, Any]) -> str | None:
    """The code of a line's language, None where it names none: `en-GB` is `en`. Raises `InputError`."""
    for name, value in values_of(line, "language"):
        text = value.strip().lower() if isinstance(value, str) else None
        if text in NO_LANGUAGE:
            return None
        code = re.fullmatch(r"([a-z]{2,3})([-_][a-z0-9_-]+)?", text or "")
        if code is None:
            raise InputError(f"{name} is {shown(value)}, not the code of a language such as en")
        return code[1]
    return None


def _number(value: Any) -> float:
    """A number, or one in a text; not a number for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _only_item(value: Any) -> Any:
    """The item of a list of one, written out too, as tables hold it; anything else as it is."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value.replace("'", '"'))
        except ValueError:
            return value
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _valid(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(f"{shown(text)} is not valid Unicode") from None
    return text


def shown(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
