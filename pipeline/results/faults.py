"""What a command could not make of single recordings or files: each is named, and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import one_line
from pipeline.sources.locations import printable

MAX_LINES = 50  # a full disk fails for every recording
log = logging.getLogger("earshard")


class Faults:
    """Counts what failed, and writes a line for each of the first `MAX_LINES`."""

    def __init__(self) -> None:
        self.num = 0

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """An exception inside is a fault of `name`, and goes no further."""
        try:
            yield
        except Exception as error:  # whatever is odd about one must not cost the others
            self.note(name, error)

    def note(self, name: str, error: Exception) -> None:
        """Count a fault and say what it was."""
        self.num += 1
        if self.num <= MAX_LINES:
            more = "; further ones are counted only" if self.num == MAX_LINES else ""
            log.error("%s: %s%s", printable(name), one_line(error), more)
