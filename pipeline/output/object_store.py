"""An output in a bucket: each file is one PUT, a published one conditional."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.errors import one_line
from pipeline.output.retried import OutputError, retried


@dataclass(frozen=True)
class ObjectStore:
    """A prefix of a bucket that fsspec reaches and that knows conditional writes, e.g. `s3://bucket/out`.

    Credentials come from the environment. Between the look and the removal of `delete_if` another writer
    may come; the driver's lock looks once more after it was taken.
    """

    root: str

    @classmethod
    def at(cls, output: str) -> ObjectStore:
        """The store of a URL. Raises `OutputError` for one with a user, a query or a fragment."""
        scheme, _, rest = output.partition("://")
        if set(rest) & set("@?#"):
            raise OutputError(
                f"{scheme}://…: the URL of an output must not hold a user, query or fragment; "
                "credentials come from the environment"
            )
        return cls(output.rstrip("/"))

    @classmethod
    def open(cls, output: str) -> ObjectStore:
        """Check that the bucket can be written. Raises `OutputError`."""
        store = cls.at(output)
        try:
            store.replace("_tmp/probe", b"")
            store.delete("_tmp/probe")
        except (OSError, ImportError, ValueError) as error:
            cause = one_line(error.__cause__ or error)
            raise OutputError(f"{store.root}: cannot write there: {cause}") from error
        return store

    @cached_property
    def _located(self) -> tuple[Any, str]:
        import fsspec

        file_system, path = fsspec.core.url_to_fs(self.root)
        return file_system, path.rstrip("/")

    @retried
    def publish(self, name: str, content: bytes) -> bool:
        """One conditional PUT. A writer whose reply was lost finds its own bytes there, and has written."""
        file_system, path = self._located
        try:
            file_system.pipe_file(f"{path}/{name}", content, mode="create")
        except OSError as error:
            if not _exists_already(error):
                raise
            return self.read(name) == content
        return True

    @retried
    def replace(self, name: str, content: bytes) -> None:
        """Write an object, whether or not it exists."""
        file_system, path = self._located
        file_system.pipe_file(f"{path}/{name}", content)

    @retried
    def read(self, name: str) -> bytes | None:
        """The bytes of an object; None if there is none."""
        file_system, path = self._located
        try:
            return file_system.cat_file(f"{path}/{name}")
        except FileNotFoundError:
            return None

    @retried
    def delete(self, name: str) -> None:
        """Remove an object if it is there."""
        file_system, path = self._located
        with suppress(FileNotFoundError):
            file_system.rm_file(f"{path}/{name}")

    @retried
    def delete_if(self, name: str, content: bytes) -> None:
        """Remove an object if it still holds these bytes."""
        if self.read(name) == content:
            self.delete(name)

    @retried
    def names(self, folder: str) -> list[str]:
        """The names of the objects directly in a folder of the output, sorted."""
        file_system, path = self._located
        try:
            entries = file_system.ls(f"{path}/{folder}", detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{entry.rpartition('/')[2]}" for entry in entries)

    def sweep(self) -> None:
        """Nothing to remove: an object appears whole or not at all."""


def _exists_already(error: OSError) -> bool:
    """Whether a conditional PUT found an object, as the stores' clients put it."""
    return error.errno == errno.EEXIST or "PreconditionFailed" in str(error) or "pre-conditions" in str(error)
