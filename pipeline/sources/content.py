"""What a recording is by its bytes: the same under another name, in another place, of another time."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from pipeline.sources.locations import check_stored, local_path, scheme_of, stat_identity
from pipeline.sources.manifests import is_clip
from pipeline.sources.recording import InputError, Recording

CHUNK_BYTES = 1 << 20
CHECKED_STORES = ("s3", "s3a")  # whose etag is a checksum of the bytes
ETAG = re.compile(r"\d+-[0-9a-f]{32}(-\d+)?")  # behind the size, as in `Recording.identity`


def content_of(recording: Recording) -> str | None:
    """A name for what is transcribed: its bytes, the clip of them, the manifest's own language and prompt.

    The bytes are read where they lie on this machine. None where they cannot be told: remote files but those
    of stores that keep a checksum, rows of Parquet files, and files that are not what they were listed as.
    """
    if not recording.bytes:
        return None
    checksum = _checksum(recording)
    if checksum is None:
        return None
    member = recording.member if recording.member is not None and is_clip(recording.member) else None
    asked = [member, recording.language, recording.prompt]
    return checksum if not any(asked) else f"{checksum} {json.dumps(asked)}"


def _checksum(recording: Recording) -> str | None:
    path = local_path(recording.uri)
    if path is None:
        is_checked = scheme_of(recording.uri) in CHECKED_STORES and ETAG.fullmatch(recording.identity)
        return f"etag:{recording.identity}" if is_checked else None
    identity, _, offset = recording.identity.partition("@")
    is_row = recording.member is not None and not offset and not is_clip(recording.member)
    if is_row:
        return None
    try:
        check_stored(recording.uri)
        return _sha256(path, identity, int(offset or 0), recording.bytes)
    except (InputError, OSError):
        return None


def _sha256(path: str, identity: str, offset: int, num_bytes: int) -> str | None:
    """The checksum of a part of a file; None if the file is not what it was."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        digest, end = hashlib.sha256(), offset + num_bytes
        while offset < end and (data := os.pread(file, min(CHUNK_BYTES, end - offset), offset)):
            digest.update(data)
            offset += len(data)
        is_whole = offset == end and stat_identity(os.fstat(file)) == identity
        return f"sha256:{digest.hexdigest()}" if is_whole else None
    finally:
        os.close(file)


@contextmanager
def contents_beside(recordings: Iterable[Recording]) -> Iterator[Future[dict[str, str | None]]]:
    """The contents of recordings by their ids, found by a thread while something else is done.

    What is not found when the block ends is left.
    """
    stop = Event()

    def find() -> dict[str, str | None]:
        return {r.recording_id: content_of(r) for r in recordings if not stop.is_set()}

    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(find)
        finally:
            stop.set()
