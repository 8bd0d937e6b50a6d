"""A round in this process: the stages of the graph, a shard after the other, the next read meanwhile."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.dataflow import local
from pipeline.output import attempts, commit
from pipeline.output.state import WorkUnit
from pipeline.output.store import open_store
from pipeline.schema import PLAN, table_of
from tests.dataflow.test_shared_lock import unit as shard_audio
from tests.fakes import FakeEngine, plan_row, result, round_context


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "out"))


@pytest.fixture
def reads(monkeypatch):
    """Reading that takes no files: the ids of the shards that were read, as they are."""
    found = []

    def read_shard(plan, _this_round):
        shard_id = plan.column("shard_id")[0].as_py()
        found.append(shard_id)
        if shard_id == 99:
            raise OSError("the disk is gone")
        return shard_audio(shard_id, plan.column("attempt")[0].as_py())

    monkeypatch.setattr(local, "read_shard", read_shard)
    return found


def units(*shard_ids):
    rows = [table_of(PLAN, [plan_row(f"{number}.wav", number)]) for number in shard_ids]
    return [
        WorkUnit(shard_id=number, attempt=1, rows=one).table()
        for number, one in zip(shard_ids, rows, strict=True)
    ]


def committed(store, this_round):
    return set(
        commit.committed(store, this_round.stamp.fingerprint, this_round.stamp.plan_hash)
        .column("shard_id")
        .to_pylist()
    )


def test_every_shard_is_committed_and_its_marker_yielded(store, reads):
    this_round = round_context(store)
    markers = list(local.run_round(units(0, 1, 2), this_round))
    assert [marker.column("shard_id")[0].as_py() for marker in markers] == [0, 1, 2]
    assert committed(store, this_round) == {0, 1, 2}
    assert not attempts.count_marks(store)


def test_a_shard_is_read_while_the_one_before_is_transcribed_and_no_more_than_one(store, reads):
    seen = []

    def answer(_samples, _language):
        deadline = time.monotonic() + 60
        while len(reads) < min(len(seen) + 2, 4) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        seen.append(len(reads))
        return result()

    list(local.run_round(units(0, 1, 2, 3), round_context(store, load=lambda: FakeEngine(answer=answer))))
    assert seen == [2, 3, 4, 4]


def test_what_fails_keeps_its_mark_and_spares_the_others(store, reads):
    seen = []

    def answer(_samples, _language):
        seen.append(reads[-1])
        if len(seen) == 2:
            raise ValueError("the model does not like this one")
        return result()

    this_round = round_context(store, load=lambda: FakeEngine(answer=answer))
    list(local.run_round(units(0, 1, 99, 2), this_round))
    assert committed(store, this_round) == {0, 2}
    lost = attempts.marks_left_in(store, this_round.round_id)
    assert lost.keys() == {"shard-000001"}
    assert "does not like this one" in lost["shard-000001"].exception


def test_an_engine_that_cannot_be_made_ends_the_round_and_the_reading(store, reads):
    def load():
        raise MemoryError("no room for the model")

    with pytest.raises(MemoryError, match="no room"):
        list(local.run_round(units(*range(9)), round_context(store, load=load)))
    deadline = time.monotonic() + 60
    while any(thread.name == "read-ahead" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(reads) <= 3
