"""Work that may share a process, and work that must not."""

from __future__ import annotations

import threading
import time

from pipeline.sharing import Sharing


class Log:
    """What was inside together with what."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.company: dict[str, set[str]] = {}

    def stay(self, name: str, door, seconds: float) -> None:
        with door():
            self.inside.add(name)
            for one in self.inside:
                self.company.setdefault(one, set()).update(self.inside)
            time.sleep(seconds)
            self.inside.remove(name)


def run_together(calls) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_some_are_beside_others_and_some_are_alone():
    sharing, log = Sharing(), Log()
    run_together(
        [
            lambda: log.stay("a", sharing.beside_others, 0.2),
            lambda: log.stay("b", sharing.beside_others, 0.2),
            lambda: log.stay("c", sharing.alone, 0.05),
            lambda: log.stay("d", sharing.beside_others, 0.05),
            lambda: log.stay("e", sharing.alone, 0.05),
        ]
    )
    assert log.company["a"] == {"a", "b"}
    assert log.company["c"] == {"c"}
    assert log.company["e"] == {"e"}
    assert log.company["d"] == {"d"}  # it came after one that waits to be alone


def test_who_fails_inside_lets_the_next_in():
    sharing, log = Sharing(), Log()
    for door in (sharing.alone, sharing.beside_others):
        try:
            with door():
                raise OSError("broken")
        except OSError:
            pass
    log.stay("later", sharing.alone, 0.0)
    assert log.company == {"later": {"later"}}
