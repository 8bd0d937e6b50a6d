"""Tar archives and WebDataset shards: members are found by their headers and never extracted."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.sources.locations import as_text, printable, size_and_identity
from pipeline.sources.manifest_fields import language_in, text_in
from pipeline.sources.manifest_lines import json_fields, open_location
from pipeline.sources.recording import REFUSED, InputError, Recording, extension
from pipeline.sources.selection import Selection, is_left_behind

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
MAX_SIDECAR_BYTES = 1 << 20


def is_tar(name: str) -> bool:
    """Whether a file is a tar archive by its name."""
    return extension(name) == "tar" or name.lower().endswith(COMPRESSED)


@dataclass
class _Group:
    """Neighbouring members of one key: audio, and perhaps what is said of it (WebDataset's convention)."""

    key: str = ""
    recordings: list[Recording] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)

    def finished(self) -> list[Recording]:
        return [replace(recording, **self.said) for recording in self.recordings]


def list_tar(location: str, name: str, selection: Selection) -> Iterator[Recording]:
    """The media files in a tar archive; the id is `NAME/MEMBER`.

    What stands beside a member is said of it: `KEY.txt` is its reference, and `KEY.json` may have the text,
    the language and the prompt of a manifest's line. A member that is no regular file, or has an absolute
    name or `..` in it, is a recording that is refused. Raises `InputError` for an archive that is compressed,
    broken or cut short.
    """
    if location.lower().endswith(COMPRESSED):
        raise InputError(
            f"{location}: is a compressed archive, which cannot be read in parts; give it as .tar"
        )
    size, identity = size_and_identity(location)
    group = _Group()
    for member, sidecar in _members(location, size):
        path = _clean(member.name)
        key = _key(path)
        if key != group.key:
            yield from group.finished()
            group = _Group(key=key)
        if sidecar is not None and not is_left_behind(path):
            group.said |= sidecar
        elif selection.takes(path, name):
            group.recordings.append(_recording(member, f"{name}/{as_text(path)}", location, identity))
    yield from group.finished()


def _key(name: str) -> str:
    """A member's name up to the first dot of its last component: members of one sample share it."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def _clean(name: str) -> str:
    """A member's name without `.` in it; one that is absolute or leads out stays as it is."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        return name
    return "/".join(part for part in parts if part not in ("", ".")) or name


def _members(location: str, size: int) -> Iterator[tuple[tarfile.TarInfo, dict[str, Any] | None]]:
    """Members but folders, in order, with what those say that say something of others."""
    try:
        with open_location(location) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                if member.isreg() and member.offset_data + member.size > size:
                    raise InputError(f"{location}: is cut short in member {printable(member.name)}")
                yield member, _sidecar(tar, member, location)
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header it has seen
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{location}: cannot be read as a tar archive: {error}") from error


def _sidecar(tar: tarfile.TarFile, member: tarfile.TarInfo, location: str) -> dict[str, Any] | None:
    """The fields of `Recording` that a member holds for its neighbours; None if it is none of that kind."""
    kind = extension(member.name)
    if kind not in ("txt", "json") or not member.isreg() or member.size > MAX_SIDECAR_BYTES:
        return None
    file = tar.extractfile(member)
    assert file is not None
    content = file.read().decode(errors="replace")
    if kind == "txt":
        return {"reference": content.strip()}
    line = json_fields(content)
    try:
        said = {"reference": text_in(line), "language": language_in(line), "prompt": text_in(line, "prompt")}
    except InputError as error:
        raise InputError(f"{location}: {printable(member.name)}: {error}") from None
    return {name: value for name, value in said.items() if value is not None}


def _recording(member: tarfile.TarInfo, recording_id: str, location: str, identity: str) -> Recording:
    allowed = member.isreg() and not member.issparse() and not member.name.startswith("/")
    allowed = allowed and ".." not in member.name.split("/")
    return Recording(
        recording_id=recording_id,
        uri=location,
        member=as_text(_clean(member.name)),
        bytes=member.size if allowed else 0,
        identity=f"{identity}@{member.offset_data}" if allowed else REFUSED,
    )
