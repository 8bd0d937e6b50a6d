"""Texts to score against, from a file beside the recordings."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.sources.locations import is_url
from pipeline.sources.manifest_fields import FIELD_NAMES, text_in
from pipeline.sources.manifest_lines import is_manifest, read_lines
from pipeline.sources.recording import InputError

NAMES = (*FIELD_NAMES["id"], *FIELD_NAMES["path"])


@dataclass(frozen=True, kw_only=True)
class References:
    """Lines of a references file by every name that a recording may be matched by.

    A line matches a recording by its id, its absolute path, its path relative to the references file, or
    its path relative to an input folder (which is its id); as it is written, or else in NFC.
    """

    by_name: Mapping[str, Mapping[str, Any]]
    digest: str  # of all lines, wherever the file lies

    def find(self, recording_id: str, uri: str) -> Mapping[str, Any] | None:
        """The line of a recording, or None."""
        names = (recording_id, uri, composed(recording_id), composed(uri))
        return next((self.by_name[name] for name in names if name in self.by_name), None)

    def text(self, recording_id: str, uri: str) -> str | None:
        """The text of a recording, or None."""
        line = self.find(recording_id, uri)
        return None if line is None else text_in(line)


def read_references(path: str) -> References:
    """Read texts from a manifest, each with a name (id or path) and a text.

    Raises `InputError` for a file that cannot be read, a line without name or text, and two lines of one
    name that differ.
    """
    if not is_manifest(path):
        raise InputError(f"{path}: references must be JSON lines, CSV, TSV or Parquet")
    if not is_url(path) and not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    folder = os.path.dirname(os.path.abspath(path))
    by_name: dict[str, Mapping[str, Any]] = {}
    digest = hashlib.sha256()
    for number, line in read_lines(path):
        digest.update(json.dumps(line, sort_keys=True, default=str).encode())
        try:
            _check(line)
            for name in _names(line, folder):
                if text_in(by_name.setdefault(name, line)) != text_in(line):
                    raise InputError(f"a second text for {name}")
        except InputError as error:
            raise InputError(f"{path}: line {number}: {error}") from None
    for name in list(by_name):
        by_name.setdefault(composed(name), by_name[name])
    return References(by_name=by_name, digest=digest.hexdigest())


def composed(name: str) -> str:
    """A name in NFC: macOS writes names in NFD, most others do not."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _check(line: Any) -> None:
    if isinstance(line, InputError):
        raise line
    if text_in(line) is None:
        raise InputError(f"has none of {', '.join(FIELD_NAMES['text'])}")
    if all(line.get(key) is None for key in NAMES):
        raise InputError(f"has none of {', '.join(NAMES)}")


def _names(line: Mapping[str, Any], folder: str) -> Iterator[str]:
    for key in NAMES:
        value = line.get(key)
        if isinstance(value, str | int):
            yield str(value)
            if key in FIELD_NAMES["path"] and not is_url(str(value)):
                yield os.path.normpath(os.path.join(folder, str(value)))


def read_truths(path: str, recordings: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The lines of a references file by recording_id, for recordings given as {recording_id: uri}.

    A line has `text`, and may have `language` and `segments`. Raises `InputError`.
    """
    references = read_references(path)
    found = ((recording_id, references.find(recording_id, uri)) for recording_id, uri in recordings.items())
    return {recording_id: {**line, "text": text_in(line)} for recording_id, line in found if line is not None}
