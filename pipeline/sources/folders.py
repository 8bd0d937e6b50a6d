"""Recordings that are files of their own: in a folder, by a pattern, or named one by one."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from pipeline.errors import one_line
from pipeline.sources.locations import (
    as_text,
    check_path,
    filesystem,
    info_identity,
    printable,
    scheme_of,
    size_and_identity,
    stat_identity,
    stored_path,
)
from pipeline.sources.recording import MISSING, UNKNOWN, InputError, Recording, is_media

WILDCARDS = "*?["


def list_folder(folder: str, *, all_files: bool, skipped: list[str]) -> Iterator[Recording]:
    """The media files below a local folder, any depth; the id is the path relative to it.

    Files without a media extension go to `skipped`, or are taken too with `all_files`. Links to folders are
    not followed. Raises `InputError` if a folder cannot be read.
    """
    pending = [folder]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                found = list(entries)
        except OSError as error:
            name = printable(str(error.filename))
            raise InputError(f"{name}: cannot be read: {one_line(error)}") from error
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif all_files or is_media(entry.name):
                yield _local_file(entry.path, os.path.relpath(entry.path, folder))
            else:
                skipped.append(printable(os.path.relpath(entry.path, folder)))


def _local_file(path: str, name: str) -> Recording:
    check_path(path)
    size, identity = size_and_identity(path)
    return Recording(recording_id=as_text(name), uri=stored_path(path), bytes=size, identity=identity)


def list_file(path: str) -> Recording:
    """One local file, whatever its name; the id is its name."""
    stat = os.stat(check_path(path))
    return Recording(
        recording_id=as_text(os.path.basename(path)),
        uri=stored_path(path),
        bytes=stat.st_size,
        identity=stat_identity(stat),
    )


def matching(pattern: str) -> tuple[str, list[str]]:
    """The folder that a pattern starts from, and the files that match, sorted. `**` means any depth."""
    if "://" in pattern:
        protocol = scheme_of(pattern)
        names = filesystem(pattern).glob(pattern.partition("://")[2])
        return _fixed_part(pattern), sorted(f"{protocol}://{name}" for name in names)
    names = glob.glob(pattern, recursive=True, include_hidden=True)
    return _fixed_part(pattern), sorted(name for name in names if not os.path.isdir(name))


def _fixed_part(pattern: str) -> str:
    """The part of a pattern before the first component with a wildcard."""
    parts = pattern.split("/")
    first = next(i for i, part in enumerate(parts) if any(mark in part for mark in WILDCARDS))
    return "/".join(parts[:first]) or "/"


def list_remote_folder(url: str, *, all_files: bool, skipped: list[str]) -> Iterator[Recording]:
    """The media files below a URL, as `list_folder`."""
    files = filesystem(url)
    prefix = f"{scheme_of(url)}://"
    root = url.removeprefix(prefix).rstrip("/")
    for folder, _, found in files.walk(root, detail=True):
        for name, info in sorted(found.items()):
            path = f"{folder}/{name}"
            relative = path.removeprefix(f"{root}/")
            if not name or info.get("type") == "directory":
                continue
            if not (all_files or is_media(name)):
                skipped.append(relative)
                continue
            yield Recording(
                recording_id=relative,
                uri=f"{prefix}{path}",
                bytes=int(info.get("size") or 0),
                identity=info_identity(info),
            )


def list_remote_file(url: str) -> Recording:
    """One file behind a URL; the id is its name. Raises `InputError` if it is not there."""
    size, identity = size_and_identity(url)
    if identity in (MISSING, UNKNOWN):
        raise InputError(f"{url}: {'no such file' if identity == MISSING else 'cannot be reached'}")
    return Recording(recording_id=url.rpartition("/")[2], uri=url, bytes=size, identity=identity)
