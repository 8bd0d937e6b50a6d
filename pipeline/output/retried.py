"""A store's calls, tried again where the error may pass, and the errors of an output."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from pipeline.errors import with_back_off

if TYPE_CHECKING:
    from pipeline.output.store import Store

BACK_OFF_S = (0.2, 1.0, 5.0)
P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Store")


class OutputError(OSError):
    """The output cannot be used; the message is one line that names it."""


class OutputFailed(OSError):
    """A file of an output could not be read or written, however often it was tried; the message names it."""


def retried(method: Callable[Concatenate[S, str, P], T]) -> Callable[Concatenate[S, str, P], T]:
    """Try a method of a store again where its error may pass. Raises `OutputFailed` with the file's name."""

    @wraps(method)
    def call(self: S, name: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return with_back_off(lambda: method(self, name, *args, **kwargs), BACK_OFF_S)
        except OutputFailed:
            raise
        except Exception as error:  # every remote file system has errors of its own
            raise OutputFailed(f"{self.root}/{name}: {reason(error)}") from error

    return call


def reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
