"""Texts to score against, from a file beside the recordings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.sources.locations import is_url
from pipeline.sources.manifests import ID_KEYS, PATH_KEYS, TEXT_KEYS, first_text, is_manifest, read_lines
from pipeline.sources.recording import InputError

NAME_KEYS = (*ID_KEYS, *PATH_KEYS)


@dataclass(frozen=True, kw_only=True)
class References:
    """Lines of a references file by every name that a recording may be matched by.

    A line matches a recording by its id, its absolute path, its path relative to the references file, or
    its path relative to an input folder (which is its id).
    """

    by_name: Mapping[str, Mapping[str, Any]]
    num_lines: int
    digest: str  # of all lines, wherever the file lies

    def find(self, recording_id: str, uri: str) -> Mapping[str, Any] | None:
        """The line of a recording, or None."""
        return self.by_name.get(recording_id) or self.by_name.get(uri)

    def text(self, recording_id: str, uri: str) -> str | None:
        """The text of a recording, or None."""
        line = self.find(recording_id, uri)
        return None if line is None else line["text"]


def read_references(path: str) -> References:
    """Read texts from JSON lines, CSV, TSV or Parquet with a name (id or path) and `text`.

    Raises `InputError` for a file that cannot be read, a line without name or text, and two lines of one
    name that differ.
    """
    if not is_manifest(path):
        raise InputError(f"{path}: references must be JSON lines, CSV, TSV or Parquet")
    if not is_url(path) and not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    folder = os.path.dirname(os.path.abspath(path))
    by_name: dict[str, Mapping[str, Any]] = {}
    num_lines, digest = 0, hashlib.sha256()
    for number, line in read_lines(path):
        num_lines += 1
        digest.update(json.dumps(line, sort_keys=True, default=str).encode())
        try:
            _check(line)
            for name in _names(line, folder):
                if by_name.setdefault(name, line)["text"] != line["text"]:
                    raise InputError(f"a second text for {name}")
        except InputError as error:
            raise InputError(f"{path}: line {number}: {error}") from None
    return References(by_name=by_name, num_lines=num_lines, digest=digest.hexdigest())


def _check(line: Any) -> None:
    if isinstance(line, InputError):
        raise line
    if first_text(line, TEXT_KEYS, may_be_empty=True) is None:
        raise InputError("has no text")
    if all(line.get(key) is None for key in NAME_KEYS):
        raise InputError(f"has none of {', '.join(NAME_KEYS)}")


def _names(line: Mapping[str, Any], folder: str) -> Iterator[str]:
    for key in NAME_KEYS:
        value = line.get(key)
        if isinstance(value, str | int):
            yield str(value)
            if key in PATH_KEYS and not is_url(str(value)):
                yield os.path.normpath(os.path.join(folder, str(value)))


def read_truths(path: str, recordings: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The lines of a references file by recording_id, for recordings given as {recording_id: uri}.

    A line has `text`, and may have `language` and `segments`. Raises `InputError`.
    """
    references = read_references(path)
    found = ((recording_id, references.find(recording_id, uri)) for recording_id, uri in recordings.items())
    return {recording_id: dict(line) for recording_id, line in found if line is not None}
