"""Recordings that are files of their own: in a folder, or named one by one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import one_line
from pipeline.sources.folder_texts import FolderTexts, is_metadata
from pipeline.sources.locations import (
    as_text,
    check_path,
    filesystem,
    info_identity,
    printable,
    scheme_of,
    size_and_identity,
    stored_path,
)
from pipeline.sources.recording import MISSING, REFUSED, UNKNOWN, InputError, Recording
from pipeline.sources.selection import Selection

# Whose keys are no paths: listed all at once by their prefix, `//` and all.
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")

log = logging.getLogger("earshard")


def list_folder(folder: str, selection: Selection) -> Iterator[Recording]:
    """The media files below a local folder, any depth; the id is the path relative to it.

    Linked folders are followed, behind all others, and every folder is listed once. A folder that cannot
    be read, and a link to where no recording may lie, is a recording that fails. Raises `InputError` if the
    folder itself cannot be read.
    """
    walk = _Walk(folder, selection)
    yield from walk.recordings()
    yield from walk.texts.unmatched(folder)


@dataclass
class _Walk:
    """A walk through a local folder; `seen` are the folders that were listed, by device and inode."""

    root: str
    selection: Selection
    texts: FolderTexts = field(default_factory=FolderTexts)
    seen: set[tuple[int, int]] = field(default_factory=set)

    def recordings(self) -> Iterator[Recording]:
        """All recordings: those of real folders first, so that their ids do not depend on links."""
        level = [self.root]
        while level:
            links: list[str] = []
            for folder in sorted(level):
                yield from self._below(folder, links)
            level = links

    def _below(self, top: str, links: list[str]) -> Iterator[Recording]:
        pending = [top]
        while pending:
            folder = pending.pop()
            try:
                if not self._is_new(folder):
                    continue
                with os.scandir(folder) as entries:
                    found = list(entries)
            except OSError as error:
                if folder == self.root:
                    raise InputError(f"{printable(folder)}: cannot be read: {one_line(error)}") from error
                yield _failing(f"{os.path.relpath(folder, self.root)}/", folder, UNKNOWN)
                continue
            read = {e.name for e in found if is_metadata(e.name) and self._says_texts(e.path)}
            for entry in found:
                if entry.name not in read:
                    yield from self._entry(entry, pending, links)

    def _entry(self, entry: os.DirEntry[str], pending: list[str], links: list[str]) -> Iterator[Recording]:
        name = os.path.relpath(entry.path, self.root)
        if _is_folder(entry):
            if not self._enters(entry.path, name):
                return
            if not entry.is_symlink():
                pending.append(entry.path)
            elif _is_allowed(entry.path):
                links.append(entry.path)
            else:
                yield _failing(f"{name}/", entry.path, REFUSED)
        elif self.texts.names(entry.path) or self.selection.takes(name):
            yield self.texts.applied(self._file(entry.path, name))

    def _says_texts(self, path: str) -> bool:
        return _is_allowed(path) and self.texts.read(path)

    def _file(self, path: str, name: str) -> Recording:
        if not _is_allowed(path):
            return _failing(name, path, REFUSED)
        return replace(list_file(path), recording_id=as_text(name))

    def _enters(self, path: str, name: str) -> bool:
        if self.selection.is_own(path, self.root):
            self.selection.passed_over.append(f"{printable(name)}/")
            return False
        return self.selection.enters(name)

    def _is_new(self, folder: str) -> bool:
        """Whether a folder was not listed before, by whatever path; if it was, the log tells."""
        stat = os.stat(folder)
        key = (stat.st_dev, stat.st_ino)
        if key in self.seen:
            log.warning(
                "%s: a loop or a second way to a folder that is listed: not followed", printable(folder)
            )
            return False
        self.seen.add(key)
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead to themselves
        return False


def _is_allowed(path: str) -> bool:
    try:
        check_path(path)
    except InputError:
        return False
    return True


def _failing(name: str, path: str, identity: str) -> Recording:
    """A recording that will fail when it is opened."""
    return Recording(recording_id=as_text(name), uri=stored_path(path), bytes=0, identity=identity)


def list_file(path: str) -> Recording:
    """One local file, whatever its name; the id is its name. Raises `InputError` where none may lie."""
    size, identity = size_and_identity(check_path(path))
    name = as_text(os.path.basename(path))
    return Recording(recording_id=name, uri=stored_path(path), bytes=size, identity=identity)


def list_remote_folder(url: str, selection: Selection) -> Iterator[Recording]:
    """The media files below a URL, as `list_folder`."""
    root = f"{url.rstrip('/')}/"
    found = list(_remote_files(root))
    texts = FolderTexts()
    read = {r.uri for r in found if is_metadata(r.uri.rpartition("/")[2]) and texts.read(r.uri)}
    for recording in found:
        name = recording.recording_id
        if recording.uri in read:
            continue
        if selection.is_own(recording.uri, root):
            selection.passed_over.append(printable(name))
        elif name.endswith("/") or texts.names(recording.uri) or selection.takes(name):
            yield texts.applied(recording)
    yield from texts.unmatched(root)


def _remote_files(root: str) -> Iterator[Recording]:
    """All files below a URL that ends with `/`; the id is the rest of the URL.

    A folder below it that cannot be read is a recording whose id ends with `/`.
    """
    files = filesystem(root)
    if scheme_of(root) in OBJECT_STORES:
        yield from _as_recordings(root, files.find(root, detail=True).values())
        return
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            listed = files.ls(folder, detail=True)
        except PermissionError:
            if folder == root:
                raise
            yield Recording(recording_id=folder.removeprefix(root), uri=folder, bytes=0, identity=UNKNOWN)
            continue
        prefix = f"{scheme_of(root)}://"
        pending += [f"{prefix}{i['name'].rstrip('/')}/" for i in listed if i["type"] == "directory"]
        yield from _as_recordings(root, listed)


def _as_recordings(root: str, infos: Iterable[Mapping[str, Any]]) -> Iterator[Recording]:
    """Files of which `fsspec` says what it knows, without folders and what stands for them."""
    for info in infos:
        uri = f"{scheme_of(root)}://{info['name']}"
        if info.get("type") != "directory" and not uri.endswith("/"):
            size, name = int(info.get("size") or 0), uri.removeprefix(root)
            yield Recording(recording_id=name, uri=uri, bytes=size, identity=info_identity(info))


def list_remote_file(url: str) -> Recording:
    """One file behind a URL; the id is its name. Raises `InputError` if it is not there."""
    size, identity = size_and_identity(url)
    if identity in (MISSING, UNKNOWN):
        raise InputError(f"{url}: {'no such file' if identity == MISSING else 'cannot be reached'}")
    return Recording(recording_id=url.rpartition("/")[2], uri=url, bytes=size, identity=identity)
