"""Text files that appear whole or not at all, and cells that are safe to open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from pipeline.errors import one_line
from pipeline.output.retried import OutputError

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def open_folder(folder: str) -> Path:
    """A folder to write to, made if need be; links in its path followed. Raises `OutputError`."""
    root = Path(os.path.realpath(folder))
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{root}: cannot be written: {one_line(error)}") from error
    return root


@contextmanager
def writing(path: Path, root: Path | None = None) -> Iterator[TextIO]:
    """A file that appears when all of it is written; below `root`, if given, links included.

    Raises `OutputError`.
    """
    temporary = path.with_name(f"{path.name}.part")
    try:
        if root is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not Path(os.path.realpath(path.parent)).is_relative_to(root):
                raise OutputError(f"{path}: a link leads out of {root}")
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {one_line(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def spreadsheet_safe(text: str) -> str:
    """A text as a cell of a table, quoted where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
