"""Paths and URLs: absolute, without secrets, of an allowed scheme, outside the system's own folders."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit, urlunsplit

from pipeline.errors import one_line
from pipeline.sources import boundaries
from pipeline.sources.recording import MISSING, UNKNOWN, InputError

SCHEMES = ("s3", "s3a", "gs", "gcs", "http", "https", "abfs", "abfss", "az", "hdfs")
WEB = ("http", "https")
# What may follow an object's key as a query, in the URLs that object stores sign.
SIGNED = re.compile(
    r"\?([\w.-]+=[^&]*&)*(versionId|sig|signature|token|access_token|X-[\w-]+|AWSAccessKeyId|GoogleAccessId)=.*",
    re.IGNORECASE | re.DOTALL,
)


def is_url(location: str) -> bool:
    """Whether a location is a URL and not a path."""
    return "://" in location


def scheme_of(url: str) -> str:
    """The scheme of a URL, in lower case."""
    return url.partition("://")[0].lower()


def absolute_uri(location: str, folder: str) -> str:
    """A location as it is stored: an absolute path, or a URL without user, query and fragment.

    `folder` (a path or a URL) is what a relative location is relative to. Raises `InputError` if the
    location is empty, of a scheme that is not read, or in a folder of the system.
    """
    if not location or "\0" in location:
        raise InputError(f"{location!r}: is no path")
    if not is_url(location):
        if is_url(folder) and not location.startswith("/"):
            return absolute_uri(f"{folder.rstrip('/')}/{location}", folder)
        return check_path(os.path.normpath(location if location[0] == "/" else f"{folder}/{location}"))
    if scheme_of(location) == "file":
        path = _file_path(location)
        if not path.startswith("/"):
            raise InputError(f"{without_secrets(location)}: refused: a file URL that names a host")
        return check_path(os.path.normpath(path))
    if scheme_of(location) not in SCHEMES or "::" in location:
        allowed = ", ".join(("file", *SCHEMES))
        raise InputError(f"{without_secrets(location)}: scheme not read, only {allowed}")
    return _checked(without_secrets(location), boundaries.check_url)


def without_secrets(url: str) -> str:
    """A URL without user, password, query and fragment; in an object's key, `?` and `#` are characters."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        raise InputError(f"{url.partition('?')[0].rpartition('@')[2]!r}: is no URL") from None
    if parts.scheme in WEB:
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    path = SIGNED.sub("", url.partition("://")[2])
    return f"{parts.scheme}://{path.partition('@')[2] if parts.username is not None else path}"


def check_path(path: str) -> str:
    """Return the path. Raises `InputError` if it leads, by links too, to where no recording may lie."""
    return _checked(path, boundaries.check_real_path)


def _checked(place: str, check: Callable[[str], None]) -> str:
    try:
        check(place)
    except InputError as error:
        raise InputError(f"{printable(place)}: {error}") from None
    return place


def check_stored(uri: str) -> None:
    """Check a stored location again, where it is opened. Raises `InputError`."""
    path = local_path(uri)
    if path is None:
        _checked(uri, boundaries.check_url)
    else:
        check_path(path)


def stored_path(path: str) -> str:
    """A path as text: itself, or a file URL where its name is not valid Unicode."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"file://{quote(os.fsencode(path))}"
    return path


def local_path(uri: str) -> str | None:
    """The path of a stored location; None for a URL of another machine."""
    if uri.startswith("file://"):
        return _file_path(uri)
    return None if is_url(uri) else uri


def _file_path(url: str) -> str:
    """What follows `file://`: no file has a query or a fragment."""
    return os.fsdecode(unquote_to_bytes(url.partition("://")[2]))


def canonical_input(location: str) -> str:
    """An input as it is compared when a job is resumed: however it is spelt, from wherever it is started."""
    if not is_url(location):
        return stored_path(os.path.abspath(location))
    if scheme_of(location) == "file":
        return stored_path(os.path.normpath(_file_path(location)))
    return without_secrets(location).rstrip("/")


def as_text(name: str) -> str:
    """A file's name as valid Unicode: bytes that are none are escaped."""
    return name if name.isascii() else os.fsencode(name).decode(errors="backslashreplace")


def printable(name: str) -> str:
    """A name as it may reach a log: control and bidirectional characters are escaped."""
    if name.isprintable():
        return as_text(name)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in as_text(name))


def stat_identity(stat: os.stat_result) -> str:
    """Identity of a local file: its size and when it was last changed."""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


IDENTITY_KEYS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "Last-Modified", "updated", "mtime")


def info_identity(info: Mapping[str, Any]) -> str:
    """Identity of a remote file from what `fsspec` says of it: its size and etag, or when it was changed."""
    mark = next((str(info[key]).strip('"') for key in IDENTITY_KEYS if info.get(key)), "")
    return f"{info.get('size')}-{mark}"


def size_and_identity(uri: str) -> tuple[int, str]:
    """Size in bytes and identity of a file; (0, `missing`) or (0, `unknown`) where there is none to see.

    Raises `InputError` where a web address turns out to lead into a private network.
    """
    path = local_path(uri)
    try:
        if path is not None:
            stat = os.stat(path)
            return stat.st_size, stat_identity(stat)
        info = filesystem(uri).info(uri)
    except Exception as error:  # every file system has errors of its own; reading will say what is wrong
        if (refusal := boundaries.private_address_in(error)) is not None:
            raise InputError(f"{printable(uri)}: refused: {refusal}") from None
        return 0, MISSING if is_missing(error) else UNKNOWN
    return int(info.get("size") or 0), info_identity(info)


def is_missing(error: Exception) -> bool:
    """Whether an error says that there is no such file. `fsspec` says so too of a server out of reach."""
    return isinstance(error, FileNotFoundError | NotADirectoryError) and not isinstance(
        error.__cause__, OSError
    )


def filesystem(url: str) -> Any:
    """The `fsspec` file system of a URL. Raises `InputError` if the package it needs is not installed."""
    import fsspec

    try:
        if scheme_of(url) in WEB:
            return fsspec.filesystem(scheme_of(url), get_client=boundaries.web_client)
        return fsspec.filesystem(scheme_of(url))
    except ImportError as error:
        raise InputError(f"{scheme_of(url)}://: {one_line(error)}") from error
