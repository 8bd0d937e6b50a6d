"""What a recording is by its bytes: the same under another name, in another place, of another time."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from pipeline.sources.locations import check_stored, local_path, scheme_of, stat_identity
from pipeline.sources.manifests import is_clip
from pipeline.sources.recording import InputError, Recording

CHUNK_BYTES = 1 << 20
END_BYTES = 1 << 16
CHECKED_STORES = ("s3", "s3a")  # whose etag is a checksum of the bytes
ETAG = re.compile(r"\d+-[0-9a-f]{32}(-\d+)?")  # behind the size, as in `Recording.identity`


def content_of(recording: Recording) -> str | None:
    """A name for what is transcribed: its bytes, the clip of them, the manifest's own language and prompt.

    It is `quick_of`, a colon and the SHA-256 of the bytes, which are read where they lie on this machine.
    None where they cannot be told: remote files but those of stores that keep a checksum, rows of Parquet
    files, and files that are not what they were listed as.
    """
    quick = quick_of(recording)
    if quick is None:
        return None
    is_local = local_path(recording.uri) is not None
    whole = _sha256_of(recording, [(0, recording.bytes)]) if is_local else ""
    if whole is None:
        return None
    asked = [_clip(recording), recording.language, recording.prompt]
    return f"{quick}:{whole}{json.dumps(asked) if any(asked) else ''}"


def quick_of(recording: Recording) -> str | None:
    """What recordings of one content have in common, for little: a hash of both ends, a store's checksum."""
    if not recording.bytes:
        return None
    if local_path(recording.uri) is None:
        is_checked = scheme_of(recording.uri) in CHECKED_STORES and ETAG.fullmatch(recording.identity)
        return recording.identity if is_checked else None
    ends = [(0, min(END_BYTES, recording.bytes)), (max(0, recording.bytes - END_BYTES), recording.bytes)]
    digest = _sha256_of(recording, ends)
    return digest[:16] if digest else None


def _clip(recording: Recording) -> str | None:
    """The clip of its file that a recording is; None for the file, and for what lies in a container."""
    return recording.member if recording.member is not None and is_clip(recording.member) else None


def _sha256_of(recording: Recording, spans: Sequence[tuple[int, int]]) -> str | None:
    """The checksum of spans of a local recording's bytes; None where they cannot be told."""
    identity, _, offset = recording.identity.partition("@")
    path = local_path(recording.uri)
    is_row = recording.member is not None and not offset and _clip(recording) is None
    if path is None or is_row:
        return None
    try:
        check_stored(recording.uri)
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (InputError, OSError):
        return None
    try:
        digest = hashlib.sha256(str(recording.bytes).encode())
        for start, end in spans:
            for data in _read(file, int(offset or 0) + start, end - start):
                digest.update(data)
        return digest.hexdigest() if stat_identity(os.fstat(file)) == identity else None
    except OSError:
        return None
    finally:
        os.close(file)


def _read(file: int, offset: int, num_bytes: int) -> Iterator[bytes]:
    """Bytes of a file in pieces. Raises `OSError` where it ends before."""
    while num_bytes:
        data = os.pread(file, min(CHUNK_BYTES, num_bytes), offset)
        if not data:
            raise OSError("ends early")
        yield data
        offset, num_bytes = offset + len(data), num_bytes - len(data)


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
