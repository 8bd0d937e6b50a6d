"""Who may work beside whom in one process: attempts that share it, and those that must be alone in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedLock:
    """A door that many may pass together, or one alone.

    Who waits to be alone goes before those who come later, so nobody waits for ever.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_inside = 0
        self._num_waiting_alone = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Inside with others, once nobody is or waits to be alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._num_waiting_alone)
            self._num_inside += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Inside when everybody has left; nobody follows before the end."""
        with self._changed:
            self._num_waiting_alone += 1
            try:
                self._changed.wait_for(lambda: not self._num_inside)
            except BaseException:
                self._num_waiting_alone -= 1
                self._changed.notify_all()
                raise
            self._num_inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_waiting_alone -= 1
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._num_inside -= 1
            self._changed.notify_all()
