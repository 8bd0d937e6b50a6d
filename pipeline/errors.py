"""The two kinds of errors that a user sees, an error as one line, and calling again what may pass.

UserError        wrong use: the command cannot be carried out as it was given; exit status 2
UnfinishedError  work is left that could not be done now; exit status 1

Whatever else reaches a command is a fault of ours, and keeps its traceback.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

# EBUSY and EREMOTEIO are what s3fs makes of 503 (slow down) and 500.
TRANSIENT = frozenset(
    getattr(errno, name, errno.EIO)
    for name in (
        *("EIO", "ETIMEDOUT", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EPIPE"),
        *("EAGAIN", "EINTR", "ESTALE", "EBUSY", "EREMOTEIO"),
    )
)
OF_REMOTE_CLIENTS = frozenset(
    [
        *("FSTimeoutError", "ServerDisconnectedError", "ClientPayloadError", "ClientConnectorError"),
        *("ClientOSError", "EndpointConnectionError", "ConnectionClosedError", "ReadTimeoutError"),
        *("ConnectTimeoutError", "IncompleteRead", "ResponseParserError", "HTTPClientError", "HttpError"),
    ]
)
BACK_OFF_S = (0.5, 2.0, 8.0)
T = TypeVar("T")


class UserError(Exception):
    """The command cannot be carried out as it was given; one line says what to change."""


class UnfinishedError(Exception):
    """Work is left that could not be done now; one line says why."""


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in TRANSIENT
    return type(error).__name__ in OF_REMOTE_CLIENTS


def with_back_off(call: Callable[[], T], *, may_pass: Callable[[Exception], bool] = is_transient) -> T:
    """Call until it succeeds, once more after each pause of `BACK_OFF_S`.

    Raises what may not pass, and the last error.
    """
    for pause_s in BACK_OFF_S:
        try:
            return call()
        except Exception as error:  # every remote file system has errors of its own
            if not may_pass(error):
                raise
        time.sleep(pause_s)
    return call()


def one_line(error: BaseException, lines: slice = slice(None)) -> str:
    """An error's message in one line of at most 200 characters; its type's name where it has none.

    Of an error of the system or of FFmpeg it is the reason alone: whoever says it names the file in their own
    way. lines: those of a message of several lines that say what is wrong.
    """
    text = getattr(error, "strerror", None) or str(error)
    found = [line for line in text.splitlines() if line.strip()]
    return " ".join(" ".join(found[lines]).split())[:200] or type(error).__name__
