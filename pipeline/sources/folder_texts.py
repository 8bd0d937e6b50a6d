"""What the `metadata.csv` of a folder says of its recordings, as Hugging Face's audio folders have it."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.sources.locations import absolute_uri, printable, size_and_identity
from pipeline.sources.manifest_fields import language_in, text_in
from pipeline.sources.manifest_lines import read_lines
from pipeline.sources.manifests import folder_of, good_lines
from pipeline.sources.recording import InputError, Recording

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"

log = logging.getLogger("earshard")


@dataclass
class FolderTexts:
    """The lines of all such files of an input, by the location of the recording in NFC."""

    lines: dict[str, Recording] = field(default_factory=dict)
    matched: set[str] = field(default_factory=set)

    def read(self, location: str) -> bool:
        """Read a file called as one of `METADATA`; False if it is one of another kind.

        Raises `InputError` with the numbers of bad lines.
        """
        try:
            lines = list(read_lines(location))
        except InputError as error:
            log.warning("not taken as texts of a folder: %s", printable(str(error)))
            return False
        if not any(isinstance(line, Mapping) and FILE_NAME in line for _, line in lines):
            return False
        folder = folder_of(location)
        for recording in good_lines(location, lines, lambda line: _recording(line, folder)):
            self.lines.setdefault(_key(recording.uri), recording)
        return True

    def names(self, uri: str) -> bool:
        """Whether a line names a recording."""
        return bool(self.lines) and _key(uri) in self.lines

    def applied(self, recording: Recording) -> Recording:
        """A recording with what its line says."""
        if not self.names(recording.uri):
            return recording
        key = _key(recording.uri)
        self.matched.add(key)
        line = self.lines[key]
        return replace(recording, reference=line.reference, language=line.language, prompt=line.prompt)

    def unmatched(self, root: str) -> Iterator[Recording]:
        """The recordings that lines name and the listing did not find; `root` is where it began."""
        for key, line in self.lines.items():
            if key not in self.matched:
                size, identity = size_and_identity(line.uri)
                name = line.uri.removeprefix(f"{root.rstrip('/')}/")
                yield replace(line, recording_id=name, bytes=size, identity=identity)


def _key(uri: str) -> str:
    return uri if uri.isascii() else unicodedata.normalize("NFC", uri)


def _recording(line: Mapping[str, Any], folder: str) -> Recording:
    """What a line says, its file not yet looked at."""
    name = line.get(FILE_NAME)
    if not isinstance(name, str) or not name:
        raise InputError(f"{FILE_NAME} is {name!r}, not a path")
    return Recording(
        recording_id=name,
        uri=absolute_uri(name, folder),
        bytes=0,
        identity="",
        reference=text_in(line),
        language=language_in(line),
        prompt=text_in(line, "prompt") or None,
    )


def is_metadata(name: str) -> bool:
    """Whether a file in a folder may say something of its neighbours."""
    return name in METADATA
