"""Which errors of a file system may pass by themselves, and calling again until they did."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
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
T = TypeVar("T")


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in TRANSIENT
    return type(error).__name__ in OF_REMOTE_CLIENTS


def with_back_off(
    call: Callable[[], T],
    back_off_s: Sequence[float],
    *,
    may_pass: Callable[[Exception], bool] = is_transient,
) -> T:
    """Call until it succeeds, once more after each pause; raises what is no transient error, and the last."""
    for pause_s in back_off_s:
        try:
            return call()
        except Exception as error:  # every remote file system has errors of its own
            if not may_pass(error):
                raise
        time.sleep(pause_s)
    return call()


def one_line(error: BaseException) -> str:
    """An error's message in one line, not too long."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
