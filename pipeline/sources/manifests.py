"""Manifests: JSON lines (NeMo's too), CSV, TSV or Parquet with a path and perhaps a text in every line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.errors import one_line
from pipeline.sources import lhotse
from pipeline.sources.locations import absolute_uri, filesystem, is_url, size_and_identity
from pipeline.sources.recording import InputError, Recording, extension

PATH_KEYS = ("audio_filepath", "audio", "path", "uri")
ID_KEYS = ("id", "recording_id")
TEXT_KEYS = ("text",)
JSON_EXTENSIONS = ("jsonl", "ndjson", "json")
TABLE_EXTENSIONS = ("csv", "tsv")
MANIFEST_EXTENSIONS = (*JSON_EXTENSIONS, *TABLE_EXTENSIONS, "parquet")
MAX_LINE = 1 << 24  # characters
MAX_BAD_LINES = 20  # stated in one error

Line = tuple[int, dict[str, Any]]


def is_manifest(name: str) -> bool:
    """Whether a file is a manifest by its name; JSON lines may be compressed by gzip."""
    stem = name.removesuffix(".gz")
    return extension(stem) in (JSON_EXTENSIONS if stem != name else MANIFEST_EXTENSIONS)


def list_manifest(location: str, lines: Iterator[Line]) -> Iterator[Recording]:
    """The recordings that a manifest names.

    Relative paths are relative to the manifest. The id is `id` or `recording_id`, else the path as written,
    with the span of time behind it where a line names one (`offset` and `duration`, as NeMo does). Raises
    `InputError` with the numbers of all bad lines.
    """
    folder = location.rpartition("/")[0] if is_url(location) else os.path.dirname(location)
    bad: list[str] = []
    for number, line in lines:
        if isinstance(line, InputError):
            bad.append(f"line {number}: {line}")
        else:
            try:
                yield _recording(line, folder)
            except InputError as error:
                bad.append(f"line {number}: {error}")
    if bad:
        shown = "; ".join(bad[:MAX_BAD_LINES])
        raise InputError(f"{location}: {len(bad)} bad lines: {shown}")


def _recording(line: Mapping[str, Any], folder: str) -> Recording:
    if lhotse.is_lhotse(line):
        line = lhotse.plain_line(line)
    path = first_text(line, PATH_KEYS)
    if path is None:
        raise InputError(f"has none of {', '.join(PATH_KEYS)}")
    uri = absolute_uri(path, folder)
    size, identity = size_and_identity(uri)
    duration_s = optional_number(line, "duration")
    member = clip_member(optional_number(line, "offset"), duration_s, line.get("channel"))
    return Recording(
        recording_id=_id_of(line, path if member is None else f"{path}#{member}"),
        uri=uri,
        member=member,
        bytes=size,
        identity=identity,
        duration_s=duration_s,
        reference=first_text(line, TEXT_KEYS, may_be_empty=True),
    )


def clip_member(offset_s: float | None, duration_s: float | None, channel: Any) -> str | None:
    """A span of time or a channel of a file as its `member`, like `t=12.500,20.000&channel=1`.

    The span is written as a media fragment (W3C Media Fragments 1.0, section 4.2.1).
    """
    if offset_s is None and channel is None:
        return None
    parts = []
    if offset_s is not None and duration_s is not None:
        parts.append(f"t={offset_s:.4f},{offset_s + duration_s:.4f}")
    if isinstance(channel, int):
        parts.append(f"channel={channel}")
    return "&".join(parts) or None


def parse_clip(member: str) -> tuple[float, float, int | None]:
    """Start, end (seconds) and channel of a `member` that `clip_member` made."""
    values = dict(part.split("=", 1) for part in member.split("&"))
    start, end = values["t"].split(",") if "t" in values else ("0", "inf")
    return float(start), float(end), int(values["channel"]) if "channel" in values else None


def _id_of(line: Mapping[str, Any], otherwise: str) -> str:
    for key in ID_KEYS:
        value = line.get(key)
        if value is not None:
            if not isinstance(value, str | int) or value == "":
                raise InputError(f"{key} is {value!r}, not a name")
            return str(value)
    return otherwise if not is_url(otherwise) else absolute_uri(otherwise, "/")


def first_text(line: Mapping[str, Any], keys: tuple[str, ...], *, may_be_empty: bool = False) -> str | None:
    """The first of `keys` that a line has, as text. Raises `InputError` if it is something else."""
    for key in keys:
        value = line.get(key)
        if value is not None:
            if not isinstance(value, str) or not (value or may_be_empty):
                raise InputError(f"{key} is {_short(value)}, not text")
            return _valid(value)
    return None


def _valid(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(f"{_short(text)} is not valid Unicode") from None
    return text


def optional_number(line: Mapping[str, Any], key: str) -> float | None:
    """A number of a line that may be missing. Raises `InputError` if it is none, or below 0."""
    value = line.get(key)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise InputError(f"{key} is {_short(value)}, not a number from 0 on")
    return number


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def read_lines(location: str) -> Iterator[Any]:
    """Numbered lines of a manifest, one dict each; a line that is none comes as the `InputError` it is.

    Raises `InputError` if the file cannot be read at all.
    """
    kind = extension(location.removesuffix(".gz"))
    if kind == "parquet":
        yield from _parquet_lines(location)
    elif kind in TABLE_EXTENSIONS:
        yield from _table_lines(location, kind)
    else:
        yield from _json_lines(location)


def _json_lines(location: str) -> Iterator[Any]:
    with _opened(location) as file:
        number = 0
        for number, text in enumerate(_text_lines(file, location), 1):
            if text.strip():
                yield number, _parsed(text)


def text_of_json(content: str) -> str | None:
    """The `text` of a JSON object; None if there is none."""
    line = _parsed(content)
    text = line.get("text") if isinstance(line, dict) else None
    return text if isinstance(text, str) else None


def _parsed(text: str) -> dict[str, Any] | InputError:
    if len(text) > MAX_LINE:
        return InputError(f"is longer than {MAX_LINE} characters")
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        return InputError(f"is no JSON: {one_line(error)}")
    return line if isinstance(line, dict) else InputError("is no JSON object")


def _table_lines(location: str, kind: str) -> Iterator[Any]:
    with _opened(location) as file:
        lines = _text_lines(file, location)
        try:
            reader = _table_reader(lines, kind)
            header: list[str] = next(reader, [])
            for values in reader:
                if values:
                    yield reader.line_num, _table_line(header, values)
        except csv.Error as error:
            raise InputError(f"{location}: cannot be read as a table: {error}") from error


def _table_reader(lines: Iterator[str], kind: str) -> Any:
    """A reader of CSV, where quotes quote, or of TSV, where they are characters like any other."""
    if kind == "csv":
        return csv.reader(lines, strict=True)
    return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)


def _table_line(header: list[str], values: list[str]) -> dict[str, Any] | InputError:
    """A line by the names of its columns; only a text may be empty."""
    if len(values) != len(header):
        return InputError(f"has {len(values)} columns, the first line {len(header)}")
    return {key: text for key, text in zip(header, values, strict=True) if text or key in TEXT_KEYS}


def _parquet_lines(location: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = (*PATH_KEYS, *ID_KEYS, *TEXT_KEYS, "duration", "offset", "language", "segments")
    try:
        with open_location(location) as file:
            parquet = pq.ParquetFile(file)
            columns = [name for name in parquet.schema_arrow.names if name in names]
            number = 0
            for batch in parquet.iter_batches(batch_size=8192, columns=columns):
                for line in batch.to_pylist():
                    number += 1
                    yield number, line
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{location}: cannot be read as Parquet: {one_line(error)}") from error


def _text_lines(file: Any, location: str) -> Iterator[str]:
    try:
        yield from io.TextIOWrapper(file, encoding="utf-8-sig", newline=None)
    except UnicodeDecodeError as error:
        raise InputError(f"{location}: is not UTF-8: {error.reason} at byte {error.start}") from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{location}: cannot be unpacked: {error}") from error


@contextmanager
def _opened(location: str) -> Iterator[Any]:
    """A manifest as bytes, unpacked if it is compressed."""
    with open_location(location) as file:
        if not location.endswith(".gz"):
            yield file
            return
        with gzip.open(file) as unpacked:
            yield unpacked


@contextmanager
def open_location(location: str) -> Iterator[Any]:
    """A local or remote file as bytes. Raises `InputError` if it cannot be opened."""
    try:
        file = filesystem(location).open(location, "rb") if is_url(location) else open(location, "rb")  # noqa: SIM115
    except Exception as error:  # every remote file system has errors of its own
        raise InputError(f"{location}: cannot be read: {one_line(error)}") from error
    with file:
        yield file
