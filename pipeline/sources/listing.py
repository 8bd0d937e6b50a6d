"""The inputs of a job taken apart, each by the reader of its kind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import one_line
from pipeline.sources import folders
from pipeline.sources.locations import WEB, absolute_uri, check_path, filesystem, is_url, scheme_of
from pipeline.sources.manifests import is_manifest, list_manifest, read_lines
from pipeline.sources.recording import InputError, Listing, Recording, extension, is_media
from pipeline.sources.references import References
from pipeline.sources.tar import is_tar, list_tar


def list_recordings(
    inputs: Sequence[str], *, all_files: bool = False, references: References | None = None
) -> Listing:
    """Find the recordings of all inputs: folders, patterns, files, manifests, containers and URLs of them.

    Nothing is listed before the recordings are taken. An id is what its reader says; where two inputs give
    the same one, the later is put behind its input's position, as `2/a.wav`. References replace what a
    manifest says. Raises `InputError`, also while the recordings are taken.
    """
    skipped: list[str] = []
    readers = [_Input(text, all_files=all_files, skipped=skipped) for text in inputs]
    for reader in readers:
        reader.check()
    recordings = _unique_ids(readers) if len(readers) > 1 else readers[0].recordings()
    if references is not None:
        recordings = _with_references(recordings, references)
    return Listing(recordings=recordings, skipped=skipped)


def _unique_ids(readers: Sequence[_Input]) -> Iterator[Recording]:
    taken: set[str] = set()
    for position, reader in enumerate(readers, 1):
        here = set()
        for recording in reader.recordings():
            if recording.recording_id in taken:
                yield replace(recording, recording_id=f"{position}/{recording.recording_id}")
            else:
                here.add(recording.recording_id)
                yield recording
        taken |= here


def _with_references(recordings: Iterator[Recording], references: References) -> Iterator[Recording]:
    for recording in recordings:
        text = references.text(recording.recording_id, recording.uri)
        yield recording if text is None else replace(recording, reference=text)


@dataclass(frozen=True)
class _Input:
    """One input as it was given."""

    text: str
    all_files: bool
    skipped: list[str]

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
            hint = f"; {len(self.skipped)} other files (--all-files takes them)" if self.skipped else ""
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
        return any(mark in path for mark in folders.WILDCARDS) and (is_url(path) or not os.path.exists(path))

    def _found(self) -> Iterator[Recording]:
        path = self._path()
        if self._is_pattern():
            yield from self._matching(path)
        elif not is_url(path) and os.path.isdir(path):
            yield from folders.list_folder(path, all_files=self.all_files, skipped=self.skipped)
        elif is_manifest(path) or is_tar(path):
            yield from self._contained(path)
        elif is_url(path):
            yield from self._remote(path)
        else:
            yield folders.list_file(path)

    def _contained(self, path: str) -> Iterator[Recording]:
        """The recordings that a file names or holds."""
        if is_tar(path):
            yield from list_tar(path, all_files=self.all_files, skipped=self.skipped)
        elif extension(path) == "parquet" and _holds_audio(path):
            yield from _list_embedded(path)
        else:
            yield from list_manifest(path, read_lines(path))

    def _remote(self, url: str) -> Iterator[Recording]:
        if scheme_of(url) in WEB or not filesystem(url).isdir(url):
            yield folders.list_remote_file(url)
        else:
            yield from folders.list_remote_folder(url, all_files=self.all_files, skipped=self.skipped)

    def _matching(self, pattern: str) -> Iterator[Recording]:
        root, paths = folders.matching(pattern)
        for path in paths:
            name = path.removeprefix(f"{root.rstrip('/')}/")
            if is_manifest(path) or is_tar(path):
                yield from self._contained(path if is_url(path) else check_path(path))
            elif self.all_files or is_media(path):
                found = folders.list_remote_file(path) if is_url(path) else folders.list_file(path)
                yield replace(found, recording_id=name)
            else:
                self.skipped.append(name)


def _holds_audio(path: str) -> bool:
    from pipeline.sources.parquet import holds_audio  # pyarrow.parquet takes 0.1 s to import

    return holds_audio(path)


def _list_embedded(path: str) -> Iterator[Recording]:
    from pipeline.sources.parquet import list_embedded

    return list_embedded(path)
