"""Several calls of one engine beside each other, so that it need not wait for the last window of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")
MAX_BESIDE = 64  # threads


class Engine(Protocol):
    """What is called."""

    def give_up(self) -> None:
        """Ends the calls of all threads with an error, and every later one."""
        ...


def beside(calls: Sequence[Callable[[], T]], engine: Engine) -> list[T]:
    """What each call returns, in their order; as many at once as there are threads.

    Raises what the first of them raises that failed; those that have not begun are not made then. Where this
    thread is stopped, as by a signal, the engine gives up, so that the others end too.
    """
    if len(calls) <= 1:
        return [call() for call in calls]
    pool = ThreadPoolExecutor(min(MAX_BESIDE, len(calls)))
    try:
        return [future.result() for future in [pool.submit(call) for call in calls]]
    except Exception:
        raise
    except BaseException:
        engine.give_up()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
