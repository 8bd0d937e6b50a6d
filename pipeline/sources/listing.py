"""The inputs of a job taken apart, each by the reader of its kind."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import one_line
from pipeline.sources import folders
from pipeline.sources.locations import (
    WEB,
    absolute_uri,
    as_text,
    canonical_input,
    check_path,
    filesystem,
    is_url,
    printable,
    scheme_of,
)
from pipeline.sources.manifest_lines import is_manifest, read_lines
from pipeline.sources.manifests import list_manifest
from pipeline.sources.patterns import exists, has_wildcard, matching
from pipeline.sources.recording import InputError, Listing, Recording, extension
from pipeline.sources.references import References
from pipeline.sources.selection import Selection, is_left_behind
from pipeline.sources.tar import is_tar, list_tar
from pipeline.wording import counted

log = logging.getLogger("earshard")


def list_recordings(
    inputs: Sequence[str],
    *,
    all_files: bool = False,
    references: References | None = None,
    output: str | None = None,
) -> Listing:
    """Find the recordings of all inputs: folders, patterns, files, manifests, containers and URLs of them.

    Nothing is listed before the recordings are taken. An id is what its reader says; where another has it,
    the input's position goes before it, as in `2/a.wav`, or a hash of the recording's place behind it. A
    recording that is listed again under its own id is taken once. References replace what a manifest says.
    `output` is where the job writes, and never input. Raises `InputError`, also while the recordings are
    taken.
    """
    own = None if output is None else canonical_input(output)
    selection = Selection(
        all_files=all_files, output=own if own is None or is_url(own) else os.path.realpath(own)
    )
    readers = [_Input(text, selection) for text in inputs]
    for reader in readers:
        reader.check()
    recordings = _unique_ids(readers)
    if references is not None:
        recordings = _with_references(recordings, references)
    return Listing(recordings=recordings, skipped=selection.skipped, passed_over=selection.passed_over)


def _unique_ids(readers: Sequence[_Input]) -> Iterator[Recording]:
    """The recordings of all inputs, each under an id of its own, whose places are kept as hashes."""
    places: dict[int, int] = {}
    num_repeated = 0
    for position, reader in enumerate(readers, 1):
        for recording in reader.recordings():
            place = hash((recording.uri, recording.member))
            name = next(
                name for name in _names(recording, position) if places.get(hash(name), place) == place
            )
            if hash(name) in places:
                num_repeated += 1
                continue
            places[hash(name)] = place
            yield recording if name == recording.recording_id else replace(recording, recording_id=name)
    if num_repeated:
        log.info("listed more than once, and taken once: %s", counted(num_repeated, "recording"))


def _names(recording: Recording, position: int) -> Iterator[str]:
    """The ids that a recording may get, the first that is free to be taken."""
    name = recording.recording_id
    yield name
    if position > 1:
        name = f"{position}/{name}"
        yield name
    digest = hashlib.sha256(f"{recording.uri}\0{recording.member}".encode()).hexdigest()
    yield from (f"{name}~{digest[:length]}" for length in (8, 16, 64))


def _with_references(recordings: Iterator[Recording], references: References) -> Iterator[Recording]:
    for recording in recordings:
        text = references.text(recording.recording_id, recording.uri)
        yield recording if text is None else replace(recording, reference=text)


@dataclass(frozen=True)
class _Input:
    """One input as it was given."""

    text: str
    selection: Selection

    def check(self) -> None:
        """Raise `InputError` if there is no such input."""
        if is_url(self.text) and scheme_of(self.text) != "file":
            absolute_uri(self.text, "/")
            return
        if not os.path.exists(self._path()) and not self._is_pattern():
            raise InputError(f"{self.text}: no such file or folder")
        if not os.access(self._path(), os.R_OK) and not self._is_pattern():
            raise InputError(f"{self.text}: cannot be read: permission denied")

    def recordings(self) -> Iterator[Recording]:
        """The recordings of this input. Raises `InputError` if it has none although it is no list."""
        num = 0
        for recording in self._listed():
            num += 1
            yield recording
        if not num and not is_manifest(self.text) and not is_tar(self.text):
            skipped = self.selection.skipped
            hint = f"; {counted(len(skipped), 'other file')} (--all-files takes such)" if skipped else ""
            raise InputError(f"{self._path()}: no recordings{hint}")

    def _listed(self) -> Iterator[Recording]:
        try:
            yield from self._found()
        except InputError:
            raise
        except Exception as error:  # every remote file system has errors of its own
            raise InputError(f"{self._path()}: cannot be listed: {one_line(error)}") from error

    def _path(self) -> str:
        return absolute_uri(self.text, os.getcwd())

    def _is_pattern(self) -> bool:
        path = self._path()
        return has_wildcard(path) and not exists(path)

    def _found(self) -> Iterator[Recording]:
        path = self._path()
        if self._is_pattern():
            yield from self._matching(path)
        elif not is_url(path) and os.path.isdir(path):
            yield from folders.list_folder(path, self.selection)
        elif is_manifest(path) or is_tar(path):
            yield from self._contained(path, path.rpartition("/")[2])
        elif is_url(path):
            yield from self._remote(path)
        else:
            yield folders.list_file(path)

    def _contained(self, path: str, name: str) -> Iterator[Recording]:
        """The recordings that a file names or holds; `name` begins the ids of those that it holds."""
        if is_tar(path):
            yield from list_tar(path, name, self.selection)
        elif extension(path) == "parquet" and _holds_audio(path):
            yield from _list_embedded(path, name)
        else:
            yield from list_manifest(path, read_lines(path))

    def _remote(self, url: str) -> Iterator[Recording]:
        if scheme_of(url) in WEB or not filesystem(url).isdir(url):
            yield folders.list_remote_file(url)
        else:
            yield from folders.list_remote_folder(url, self.selection)

    def _matching(self, pattern: str) -> Iterator[Recording]:
        root, paths = matching(pattern)
        for path in paths:
            name = path.removeprefix(f"{root.rstrip('/')}/")
            is_container = is_manifest(path) or is_tar(path)
            if self.selection.is_own(path, root):
                self.selection.passed_over.append(printable(name))
            elif is_container and not is_left_behind(name):
                yield from self._contained(path if is_url(path) else check_path(path), name)
            elif self.selection.takes(name):
                found = folders.list_remote_file(path) if is_url(path) else folders.list_file(path)
                yield replace(found, recording_id=as_text(name))


def _holds_audio(path: str) -> bool:
    from pipeline.sources.parquet import holds_audio  # pyarrow.parquet takes 0.1 s to import

    return holds_audio(path)


def _list_embedded(path: str, name: str) -> Iterator[Recording]:
    from pipeline.sources.parquet import list_embedded

    return list_embedded(path, name)
