"""A store's calls, tried again where the error may pass, and the errors of an output."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from pipeline.errors import UnfinishedError, UserError, one_line, with_back_off


class Rooted(Protocol):
    """A store, of which only the folder or URL is asked here."""

    @property
    def root(self) -> Path | str: ...


P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=Rooted)


class OutputError(UserError):
    """The output cannot be used; the message is one line that names it."""


class OutputFailed(UnfinishedError, OSError):
    """A file of an output could not be read or written, however often it was tried; the message names it."""


def retried(method: Callable[Concatenate[S, str, P], T]) -> Callable[Concatenate[S, str, P], T]:
    """Try a method of a store again where its error may pass. Raises `OutputFailed` with the file's name."""

    @wraps(method)
    def call(self: S, name: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return with_back_off(lambda: method(self, name, *args, **kwargs))
        except OutputFailed:
            raise
        except Exception as error:  # every remote file system has errors of its own
            raise OutputFailed(f"{self.root}/{name}: {one_line(error)}") from error

    return call
