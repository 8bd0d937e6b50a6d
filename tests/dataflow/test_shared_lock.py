"""Work that may share a process, and work that must not."""

from __future__ import annotations

import threading
import time

import pyarrow as pa

from pipeline.dataflow.shared_lock import SharedLock
from pipeline.dataflow.stages import TranscribeShard
from pipeline.output import attempts
from pipeline.output.store import open_store
from tests.fakes import FakeEngine, audio_table, read_recording, result, round_context

PATIENCE_S = 60.0


class Log:
    """What was inside together with what."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.company: dict[str, set[str]] = {}

    def stay(self, name: str, door, until: threading.Event | None = None) -> None:
        """Go in, and out again when the event is set."""
        with door():
            self.inside.add(name)
            for one in self.inside:
                self.company.setdefault(one, set()).update(self.inside)
            assert until is None or until.wait(PATIENCE_S)
            self.inside.remove(name)


def run_together(calls, all_came: threading.Event) -> None:
    """Start each of the calls when the one before it has come to its door."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    all_came.set()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_some_are_beside_others_and_some_are_alone():
    sharing, log, all_came = SharedLock(), Log(), threading.Event()
    run_together(
        [
            lambda: log.stay("a", sharing.shared, all_came),
            lambda: log.stay("b", sharing.shared, all_came),
            lambda: log.stay("c", sharing.exclusive),
            lambda: log.stay("d", sharing.shared),
            lambda: log.stay("e", sharing.exclusive),
        ],
        all_came,
    )
    assert log.company["a"] == {"a", "b"}
    assert log.company["c"] == {"c"}
    assert log.company["e"] == {"e"}
    assert log.company["d"] == {"d"}  # it came after one that waits to be alone


def test_who_fails_inside_lets_the_next_in():
    sharing, log = SharedLock(), Log()
    for door in (sharing.exclusive, sharing.shared):
        try:
            with door():
                raise OSError("broken")
        except OSError:
            pass
    log.stay("later", sharing.exclusive)
    assert log.company == {"later": {"later"}}


def unit(shard_id: int, attempt: int) -> pa.Table:
    """A decoded shard of one recording with one window."""
    table = audio_table([read_recording(f"{shard_id}.wav")], [(0, 0.0, 2.0, [(0.0, 2.0)])])
    for name, value in (("shard_id", shard_id), ("attempt", attempt)):
        column = table.schema.get_field_index(name)
        field = table.schema.field(name)
        table = table.set_column(column, field, pa.array([value], field.type))
    return table


def test_first_attempts_share_the_engine_and_a_second_one_is_marked_and_run_alone(tmp_path):
    store, marks, all_came = open_store(str(tmp_path / "out")), {}, threading.Event()

    def answer(_samples, _language):
        assert all_came.wait(PATIENCE_S)
        found = attempts.count_marks(store)
        for name in found:
            marks.setdefault(name, set()).update(found)
        return result()

    work = TranscribeShard(round_context(store, load=lambda: FakeEngine(answer=answer)))
    units = [unit(0, 1), unit(1, 1), unit(2, 2), unit(3, 1)]
    run_together([lambda one=one: work(one) for one in units], all_came)
    assert "shard-000001" in marks["shard-000000"]
    assert marks["shard-000002"] == {"shard-000002"}
    assert not attempts.count_marks(store)
