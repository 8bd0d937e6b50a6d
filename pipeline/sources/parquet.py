"""Parquet files with the audio itself in a column, as Hugging Face's datasets are stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import one_line
from pipeline.sources.locations import size_and_identity
from pipeline.sources.manifest_fields import FIELD_NAMES, id_in, language_in, plain_name, seconds_in, text_in
from pipeline.sources.manifest_lines import open_location
from pipeline.sources.recording import InputError, Recording, RecordingError

AUDIO_COLUMN = "audio"
TAKEN = {name for field in ("id", "text", "duration", "language", "prompt") for name in FIELD_NAMES[field]}
MAX_GROUP_BYTES = 2 << 30


def holds_audio(location: str) -> bool:
    """Whether the `audio` column of a Parquet file has bytes in it. Raises `InputError`.

    Hugging Face's struct may hold paths alone: its bytes are null then, as the file's statistics say.
    """
    with _parquet(location) as file:
        path = _bytes_path(file.schema_arrow)
        return path is not None and (path == AUDIO_COLUMN or not _is_null(file.metadata, path))


def _is_null(metadata: pq.FileMetaData, path: str) -> bool:
    """Whether a column of a file holds nothing but null, as far as its statistics tell."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    told = [column.statistics for column in columns if column.path_in_schema == path]
    return bool(told) and all(one is not None and one.num_values == 0 for one in told)


def _bytes_path(schema: pa.Schema) -> str | None:
    """The path of the column of bytes: `audio`, or `audio.bytes` beside `audio.path`."""
    if AUDIO_COLUMN not in schema.names:
        return None
    kind = schema.field(AUDIO_COLUMN).type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return AUDIO_COLUMN
    if pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]:
        return f"{AUDIO_COLUMN}.bytes"
    return None


def list_embedded(location: str, name: str) -> Iterator[Recording]:
    """The recordings in a Parquet file; `member` is the number of the row.

    The id is `id` or `recording_id`, else `NAME/row-0000012`. Columns have the names of any manifest's
    fields; what lies in a row is all of a recording, whatever `offset` or `channel` tell of its origin. The
    audio is not read: its size is the mean of its row group. Raises `InputError`.
    """
    _, identity = size_and_identity(location)
    with _parquet(location) as file:
        columns = [c for c in file.schema_arrow.names if plain_name(c) in TAKEN]
        number = 0
        for group in range(file.num_row_groups):
            num_bytes = _mean_bytes(file, group)
            for row in _rows(file, group, columns):
                try:
                    line = {plain_name(column): value for column, value in row.items()}
                    yield Recording(
                        recording_id=id_in(line) or f"{name}/row-{number:07d}",
                        uri=location,
                        member=str(number),
                        bytes=num_bytes,
                        identity=identity,
                        duration_s=seconds_in(line, "duration"),
                        reference=text_in(line),
                        language=language_in(line),
                        prompt=text_in(line, "prompt") or None,
                    )
                except InputError as error:
                    raise InputError(f"{location}: row {number}: {error}") from None
                number += 1


def _rows(file: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:
        yield from ({} for _ in range(file.metadata.row_group(group).num_rows))
        return
    for batch in file.iter_batches(row_groups=[group], columns=columns):
        yield from batch.to_pylist()


def _mean_bytes(file: pq.ParquetFile, group: int) -> int:
    metadata = file.metadata.row_group(group)
    path = _bytes_path(file.schema_arrow)
    columns = [metadata.column(i) for i in range(metadata.num_columns)]
    total = sum(column.total_uncompressed_size for column in columns if column.path_in_schema == path)
    return total // max(1, metadata.num_rows)


def read_embedded(location: str, member: str) -> bytes:
    """The audio of a row. Raises `RecordingError` if it has none, `ValueError` if there is no such row."""
    number = int(member)
    for group, num_rows in enumerate(_group_sizes(location)):
        if number < num_rows:
            value = _audio_of_group(location, group)[number]
            if not value.is_valid:
                raise RecordingError("no_audio", f"{location}: row {member} holds no audio")
            return value.as_py()
        number -= num_rows
    raise ValueError(f"there is no row {member}")


@lru_cache(maxsize=8)
def _group_sizes(location: str) -> list[int]:
    with _parquet(location) as file:
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]


@lru_cache(maxsize=1)
def _audio_of_group(location: str, group: int) -> pa.ChunkedArray:
    """The bytes of a row group; kept, since neighbours in a plan are neighbours in the file."""
    with _parquet(location) as file:
        if file.metadata.row_group(group).total_byte_size > MAX_GROUP_BYTES:
            raise ValueError(f"a row group has more than {MAX_GROUP_BYTES} bytes")
        path = _bytes_path(file.schema_arrow)
        column = file.read_row_group(group, columns=[path]).column(AUDIO_COLUMN)
    return column if path == AUDIO_COLUMN else pa.chunked_array([c.field("bytes") for c in column.chunks])


@contextmanager
def _parquet(location: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file, local or remote. Raises `InputError` if it is none."""
    with open_location(location) as file:
        try:
            opened = pq.ParquetFile(file)
        except pa.ArrowException as error:
            raise InputError(f"{location}: cannot be read as Parquet: {one_line(error)}") from error
        yield opened
