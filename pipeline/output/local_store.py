"""An output in a folder: temporary name, sync, link."""

from __future__ import annotations

import errno
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import one_line
from pipeline.output.retried import OutputError, retried


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
            raise OutputError(f"{output}: cannot write there: {one_line(error)}") from error
        return store

    def path(self, name: str) -> Path:
        """The absolute path of a file of the output."""
        return self.root / name

    @retried
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

    @retried
    def replace(self, name: str, content: bytes) -> None:
        """Write a file, whether or not it exists."""
        temporary = self._write_temporary(content)
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, target)
        _sync_folder(target.parent)

    @retried
    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None if there is none."""
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            return None

    @retried
    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        self.path(name).unlink(missing_ok=True)

    @retried
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

    @retried
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
