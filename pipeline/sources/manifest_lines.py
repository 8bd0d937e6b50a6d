"""Manifests line by line: JSON lines, a JSON array, CSV, TSV or Parquet, each line a dict by plain names."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

from pipeline.errors import one_line
from pipeline.sources.locations import filesystem, is_url
from pipeline.sources.manifest_fields import ALL_NAMES, FIELD_NAMES, plain_name
from pipeline.sources.recording import InputError, extension

JSON_EXTENSIONS = ("jsonl", "ndjson", "json")
TABLE_EXTENSIONS = ("csv", "tsv")
MANIFEST_EXTENSIONS = (*JSON_EXTENSIONS, *TABLE_EXTENSIONS, "parquet")
SEPARATORS = {"csv": ",;\t|", "tsv": "\t"}  # of CSV, the one that splits the header into most known names
MAX_LINE = 1 << 24  # characters
MAX_ARRAY = 1 << 30


def is_manifest(name: str) -> bool:
    """Whether a file is a manifest by its name; all but Parquet may be compressed by gzip."""
    stem = name.removesuffix(".gz")
    return extension(stem) in MANIFEST_EXTENSIONS and (stem == name or extension(stem) != "parquet")


def read_lines(location: str) -> Iterator[tuple[int, Any]]:
    """The lines of a manifest with their numbers, a dict each; one that is none is the `InputError` it is.

    Names are as `manifest_fields` looks them up. The items of a JSON array and the rows of a Parquet file are
    numbered from 1. Raises `InputError` if the file cannot be read at all.
    """
    kind = extension(location.removesuffix(".gz"))
    if kind == "parquet":
        lines = _parquet_lines(location)
    elif kind in TABLE_EXTENSIONS:
        lines = _table_lines(location, kind)
    else:
        lines = _json_lines(location)
    for number, line in lines:
        yield number, _named(line) if isinstance(line, dict) else line


def _named(line: dict[str, Any]) -> dict[str, Any] | InputError:
    """A line by plain names."""
    named = {plain_name(name): value for name, value in line.items()}
    return named if len(named) == len(line) else InputError(f"has a name twice: {', '.join(line)}"[:200])


def _json_lines(location: str) -> Iterator[tuple[int, Any]]:
    with _opened(location) as file:
        lines = _text_lines(file, location)
        has_begun = False
        for number, text in enumerate(lines, 1):
            if not has_begun and text.lstrip().startswith("["):
                yield from _array_items(text + "".join(lines), location)
            elif text.strip():
                yield number, _parsed(text)
            has_begun = has_begun or bool(text.strip())


def _array_items(text: str, location: str) -> Iterator[tuple[int, Any]]:
    if len(text) > MAX_ARRAY:
        raise InputError(
            f"{location}: an array may have {MAX_ARRAY} characters; JSON lines have no such limit"
        )
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{location}: is no JSON array: {one_line(error)}") from None
    for number, item in enumerate(items, 1):
        yield number, item if isinstance(item, dict) else InputError("is no JSON object")


def json_fields(content: str) -> Mapping[str, Any]:
    """The fields of a JSON object by plain names; none if it is no object."""
    line = _parsed(content)
    named = _named(line) if isinstance(line, dict) else {}
    return named if isinstance(named, dict) else {}


def _parsed(text: str) -> dict[str, Any] | InputError:
    if len(text) > MAX_LINE:
        return InputError(f"is longer than {MAX_LINE} characters")
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        return InputError(f"is no JSON: {one_line(error)}")
    return line if isinstance(line, dict) else InputError("is no JSON object")


def _table_lines(location: str, kind: str) -> Iterator[tuple[int, Any]]:
    with _opened(location) as file:
        lines = _text_lines(file, location)
        try:
            first = next(lines, "")
            separator = _separator(first, kind)
            is_padded = any(name != name.strip() for name in _split(first.strip("\n"), separator))
            reader = _table_reader(chain([first], lines), separator, kind, is_padded)
            header = [plain_name(name) for name in next(reader, [])]
            _check_header(header, location)
            for found in reader:
                if found:
                    values = [value.strip() for value in found] if is_padded else found
                    yield reader.line_num, _table_line(header, values)
        except csv.Error as error:
            raise InputError(f"{location}: cannot be read as a table: {error}") from error


def _separator(header: str, kind: str) -> str:
    """The character between columns: the one by which the header has most names that are known."""

    def num_known(mark: str) -> int:
        return len(ALL_NAMES.intersection(map(plain_name, _split(header, mark))))

    return max(SEPARATORS[kind], key=num_known)


def _split(header: str, separator: str) -> list[str]:
    return next(csv.reader([header], delimiter=separator), [])


def _table_reader(lines: Iterator[str], separator: str, kind: str, is_padded: bool) -> Any:
    """A reader of CSV, where quotes quote, or of TSV, where they are characters like any other."""
    csv.field_size_limit(MAX_LINE)  # of the process; the default is 131,072
    if kind == "tsv":
        return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, delimiter=separator, skipinitialspace=is_padded, strict=True)


def _check_header(header: list[str], location: str) -> None:
    twice = sorted(name for name in ALL_NAMES if header.count(name) > 1)
    if twice:
        raise InputError(f"{location}: two columns are called {twice[0]}")


def _table_line(header: list[str], values: list[str]) -> dict[str, Any] | InputError:
    """A line by the names of its columns; only a text may be empty."""
    if len(values) != len(header):
        return InputError(f"has {len(values)} columns, the first line {len(header)}")
    may_be_empty = FIELD_NAMES["text"]
    named = zip(header, values, strict=True)
    return {name: text for name, text in named if name and (text or name in may_be_empty)}


def _parquet_lines(location: str) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = {*ALL_NAMES, "segments"}
    try:
        with open_location(location) as file:
            parquet = pq.ParquetFile(file)
            columns = [name for name in parquet.schema_arrow.names if plain_name(name) in wanted]
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
