"""Tar archives and WebDataset shards: members are found by their headers and never extracted."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pipeline.sources.locations import as_text, printable, size_and_identity
from pipeline.sources.manifests import open_location, text_of_json
from pipeline.sources.recording import REFUSED, InputError, Recording, extension, is_media

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
MAX_SIDECAR_BYTES = 1 << 20


def is_tar(name: str) -> bool:
    """Whether a file is a tar archive by its name."""
    return extension(name) == "tar" or name.lower().endswith(COMPRESSED)


@dataclass
class _Group:
    """Neighbouring members of one key: audio, and perhaps its text (WebDataset's convention)."""

    key: str = ""
    recordings: list[Recording] = field(default_factory=list)
    text: str | None = None

    def finished(self) -> list[Recording]:
        return [replace(recording, reference=self.text) for recording in self.recordings]


def list_tar(location: str, *, all_files: bool, skipped: list[str]) -> Iterator[Recording]:
    """The media files in a tar archive; the id is `ARCHIVE/MEMBER`.

    A text beside a member (`KEY.txt`, or `text` in `KEY.json`) is its reference. A member that is no regular
    file, or has an absolute name or `..` in it, is a recording that is refused. Raises `InputError` for an
    archive that is compressed, broken or cut short.
    """
    if location.lower().endswith(COMPRESSED):
        raise InputError(
            f"{location}: is a compressed archive, which cannot be read in parts; give it as .tar"
        )
    size, identity = size_and_identity(location)
    name = location.rpartition("/")[2]
    group = _Group()
    for member, text in _members(location, size):
        key = _key(member.name)
        if key != group.key:
            yield from group.finished()
            group = _Group(key=key)
        if text is not None:
            group.text = text
        elif all_files or is_media(member.name):
            group.recordings.append(_recording(member, name, location, identity))
        else:
            skipped.append(printable(f"{name}/{member.name}"))
    yield from group.finished()


def _key(name: str) -> str:
    """A member's name up to the first dot of its last component: members of one sample share it."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def _members(location: str, size: int) -> Iterator[tuple[tarfile.TarInfo, str | None]]:
    """Members but folders, in order, with the text of those that hold one."""
    try:
        with open_location(location) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                if member.isreg() and member.offset_data + member.size > size:
                    raise InputError(f"{location}: is cut short in member {printable(member.name)}")
                yield member, _sidecar_text(tar, member)
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header it has seen
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{location}: cannot be read as a tar archive: {error}") from error


def _sidecar_text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    kind = extension(member.name)
    if kind not in ("txt", "json") or not member.isreg() or member.size > MAX_SIDECAR_BYTES:
        return None
    file = tar.extractfile(member)
    assert file is not None
    content = file.read().decode(errors="replace")
    return content.strip() if kind == "txt" else text_of_json(content)


def _recording(member: tarfile.TarInfo, archive: str, location: str, identity: str) -> Recording:
    allowed = member.isreg() and not member.issparse() and not member.name.startswith("/")
    allowed = allowed and ".." not in member.name.split("/")
    name = as_text(member.name)
    return Recording(
        recording_id=f"{archive}/{name}",
        uri=location,
        member=name,
        bytes=member.size if allowed else 0,
        identity=f"{identity}@{member.offset_data}" if allowed else REFUSED,
    )
