"""Where an output lives: whole files that appear at once or not at all, in a folder or in a bucket.

In a folder, bytes are written under `_tmp`, synced, and then linked to their name (`publish`, which fails if
the name exists) or renamed over it (`replace`). In a bucket each is one PUT, `publish` one that must not find
an object of that name.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pipeline.retries import with_back_off

BACK_OFF_S = (0.2, 1.0, 5.0)

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Store")


class OutputError(OSError):
    """The output cannot be used; the message is one line that names it."""


class OutputFailed(OSError):
    """A file of an output could not be read or written, however often it was tried; the message names it."""


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


def _retried(method: Callable[Concatenate[S, str, P], T]) -> Callable[Concatenate[S, str, P], T]:
    """Try a method of a store again where its error may pass. Raises `OutputFailed` with the file's name."""

    @wraps(method)
    def call(self: S, name: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return with_back_off(lambda: method(self, name, *args, **kwargs), BACK_OFF_S)
        except OutputFailed:
            raise
        except Exception as error:  # every remote file system has errors of its own
            raise OutputFailed(f"{self.root}/{name}: {_reason(error)}") from error

    return call


def open_store(output: str) -> Store:
    """The store of an output that will be written; made if need be. Raises `OutputError`."""
    return ObjectStore.open(output) if "://" in output else LocalStore.open(output)


def store_at(output: str) -> Store:
    """The store of an output that may not be there, to be read only."""
    return ObjectStore.at(output) if "://" in output else LocalStore(Path(os.path.abspath(output)))


def existing_store(output: str) -> Store:
    """The store of a job that ran, to be read only. Raises `OutputError` if there is none."""
    store = store_at(output)
    try:
        if store.read("_job.json") is not None:
            return store
    except OSError as error:
        raise OutputError(f"{store.root}: cannot be read: {_reason(error)}") from error
    raise OutputError(f"{store.root}: is not the output of a job")


@dataclass(frozen=True)
class LocalStore:
    """A folder on a file system that every process of the job sees."""

    root: Path

    @classmethod
    def open(cls, output: str) -> LocalStore:
        """Make the folder if need be and check that it can be written. Raises `OutputError`."""
        store = cls(Path(os.path.abspath(output)))
        try:
            store._temporary().parent.mkdir(parents=True, exist_ok=True)
            probe = store._temporary()
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise OutputError(f"{output}: cannot write there: {_reason(error)}") from error
        return store

    def path(self, name: str) -> Path:
        """The absolute path of a file of the output."""
        return self.root / name

    @_retried
    def publish(self, name: str, content: bytes) -> bool:
        """Write a file that must not exist yet; False, and nothing written, if it does."""
        temporary = self._write_temporary(content)
        target = self.path(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
        return True

    @_retried
    def replace(self, name: str, content: bytes) -> None:
        """Write a file, whether or not it exists."""
        temporary = self._write_temporary(content)
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, target)
        _sync_folder(target.parent)

    @_retried
    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None if there is none."""
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            return None

    @_retried
    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        self.path(name).unlink(missing_ok=True)

    @_retried
    def delete_if(self, name: str, content: bytes) -> None:
        """Remove a file if it still holds these bytes. Of two that try at once, one finds it gone."""
        aside = self._temporary()
        try:
            os.rename(self.path(name), aside)
        except FileNotFoundError:
            return
        found = aside.read_bytes()
        if found != content:  # written anew since the caller looked: give it back
            self.publish(name, found)
        aside.unlink()

    @_retried
    def names(self, folder: str) -> list[str]:
        """The names of the files directly in a folder of the output, sorted."""
        try:
            return sorted(f"{folder}/{entry}" for entry in os.listdir(self.path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sweep(self) -> None:
        """Remove what writers that were killed left half written. Nobody else may be writing."""
        for name in self.names("_tmp"):
            if name.endswith(".part"):
                self.delete(name)

    def _write_temporary(self, content: bytes) -> Path:
        temporary = self._temporary()
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:  # `_tmp` was swept by a run that ended
            temporary.parent.mkdir(parents=True, exist_ok=True)
            return self._write_temporary(content)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _temporary(self) -> Path:
        return self.root / "_tmp" / f"{uuid.uuid4().hex}.part"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems do not sync folders
            raise
    finally:
        os.close(descriptor)


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
                f"{scheme}://…: an output's URL has no user, query or fragment: use the environment"
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
            raise OutputError(
                f"{store.root}: cannot write there: {_reason(error.__cause__ or error)}"
            ) from error
        return store

    @cached_property
    def _located(self) -> tuple[Any, str]:
        import fsspec

        file_system, path = fsspec.core.url_to_fs(self.root)
        return file_system, path.rstrip("/")

    @_retried
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

    @_retried
    def replace(self, name: str, content: bytes) -> None:
        """Write an object, whether or not it exists."""
        file_system, path = self._located
        file_system.pipe_file(f"{path}/{name}", content)

    @_retried
    def read(self, name: str) -> bytes | None:
        """The bytes of an object; None if there is none."""
        file_system, path = self._located
        try:
            return file_system.cat_file(f"{path}/{name}")
        except FileNotFoundError:
            return None

    @_retried
    def delete(self, name: str) -> None:
        """Remove an object if it is there."""
        file_system, path = self._located
        with suppress(FileNotFoundError):
            file_system.rm_file(f"{path}/{name}")

    @_retried
    def delete_if(self, name: str, content: bytes) -> None:
        """Remove an object if it still holds these bytes."""
        if self.read(name) == content:
            self.delete(name)

    @_retried
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


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
