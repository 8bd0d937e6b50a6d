"""Where an output lives: whole files that appear at once or not at all, in a folder or in a bucket.

In a folder, bytes are written under `_tmp`, synced, and then linked to their name (`publish`, which fails if
the name exists) or renamed over it (`replace`). In a bucket each is one PUT, `publish` one that must not find
an object of that name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from pipeline.output.local_store import LocalStore
from pipeline.output.object_store import ObjectStore


class Store(Protocol):
    """Files of an output by their names, such as `metrics/shard-000000.parquet`."""

    @property
    def root(self) -> Path | str:
        """The folder or the URL, as it may be shown."""
        ...

    def publish(self, name: str, content: bytes) -> bool:
        """Write a file that must not exist yet; False, and nothing written, if it does."""
        ...

    def replace(self, name: str, content: bytes) -> None:
        """Write a file, whether or not it exists."""
        ...

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None if there is none."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        ...

    def delete_if(self, name: str, content: bytes) -> None:
        """Remove a file if it still holds these bytes."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names of the files directly in a folder of the output, sorted."""
        ...

    def sweep(self) -> None:
        """Remove what writers that were killed left half written. Nobody else may be writing."""
        ...


def open_store(output: str) -> Store:
    """The store of an output that will be written; made if need be. Raises `OutputError`."""
    return ObjectStore.open(output) if "://" in output else LocalStore.open(output)


def store_at(output: str) -> Store:
    """The store of an output that may not be there, to be read only."""
    return ObjectStore.at(output) if "://" in output else LocalStore(Path(os.path.abspath(output)))
