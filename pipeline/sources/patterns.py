"""Patterns: the files whose names match, each at its place below the fixed part of the pattern."""

from __future__ import annotations

import glob
import os

from pipeline.sources.locations import filesystem, is_url, scheme_of

WILDCARDS = "*?["


def has_wildcard(text: str) -> bool:
    """Whether a text may be a pattern."""
    return any(mark in text for mark in WILDCARDS)


def exists(location: str) -> bool:
    """Whether there is a file or a folder of just this name."""
    return filesystem(location).exists(location) if is_url(location) else os.path.exists(location)


def matching(pattern: str) -> tuple[str, list[str]]:
    """The folder that a pattern starts from, and the files that match, sorted. `**` means any depth.

    A component that is the name of a folder is that folder, whatever marks are in it.
    """
    root = _fixed_part(pattern)
    escaped = f"{_escaped(root)}{pattern.removeprefix(root)}"
    if is_url(pattern):
        names = filesystem(pattern).glob(escaped.partition("://")[2])
        return root, sorted(f"{scheme_of(pattern)}://{name}" for name in names)
    names = glob.glob(escaped, recursive=True, include_hidden=True)
    return root, sorted(name for name in names if not os.path.isdir(name))


def _escaped(location: str) -> str:
    """A location as a pattern that matches nothing else."""
    scheme, mark, path = location.rpartition("://")
    return f"{scheme}{mark}{glob.escape(path)}"


def _fixed_part(pattern: str) -> str:
    """The part of a pattern before the first component with a wildcard that is no folder's name."""
    parts = pattern.split("/")
    first = 1
    while first < len(parts) and (not has_wildcard(parts[first]) or exists("/".join(parts[: first + 1]))):
        first += 1
    return "/".join(parts[:first]) or "/"
