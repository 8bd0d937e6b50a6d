"""The level of every epoch follows from committed counts, and from nothing else."""

from __future__ import annotations

import random

import pytest

from pipeline.adaptive import gate, sampling
from pipeline.adaptive.bounds import draw_of
from pipeline.adaptive.epochs import EpochLevel, Epochs, next_epoch, read_epoch
from pipeline.adaptive.files import epoch_name
from pipeline.adaptive.job_policy import JobPolicy
from pipeline.output.local_store import LocalStore
from tests.adaptive.made_rows import LADDER, counts, marker

POLICY = JobPolicy(ladder=LADDER, start=3, budget=0.01, salt="plan", epoch_shards=4)


def before(**changes):
    return EpochLevel(**({"epoch": 4, "rung": 3} | changes))


def test_a_level_within_the_budget_stays_and_is_looked_at_again_when_the_shadow_has_grown():
    after = next_epoch(before(), [marker(i) for i in range(8)], POLICY)
    assert (after.epoch, after.rung, after.num_looks, after.next_look_words) == (5, 3, 1, 7200)
    assert after.look.passed
    assert next_epoch(after, [marker(i) for i in range(8)], POLICY).look is None


def test_a_level_over_the_budget_is_left_for_the_next_milder_one():
    after = next_epoch(before(num_looks=2), [marker(i, errors=2) for i in range(8)], POLICY)
    assert (after.rung, after.num_looks, after.next_look_words) == (2, 3, sampling.MIN_WORDS)
    assert (after.look.excess, after.look.num_words) == (pytest.approx(1 / 30), 4800)


def test_little_shadow_decides_nothing():
    after = next_epoch(before(), [marker(i, errors=2) for i in range(3)], POLICY)
    assert (after.rung, after.num_looks, after.look) == (3, 0, None)


def test_shadows_of_other_levels_do_not_count():
    shards = [marker(i, errors=9, level=2) for i in range(8)] + [marker(i) for i in range(8, 16)]
    assert next_epoch(before(), shards, POLICY).look.excess == 0


def test_what_the_job_was_calibrated_with_counts():
    policy = JobPolicy(**{**POLICY.__dict__, "calibrated": ((), (), (draw_of(counts(60, 9)),) * 200)})
    assert next_epoch(before(), [marker(i) for i in range(8)], policy).rung == 2


def test_looks_are_used_up_and_dense_stays_dense():
    lossy = [marker(i, errors=9) for i in range(8)]
    assert next_epoch(before(num_looks=32), lossy, POLICY).rung == 3
    dense = [marker(i, level=0) for i in range(8)]
    assert next_epoch(before(rung=0), dense, POLICY).rung == 0


def written_levels(folder, order):
    """The epoch files of sixteen shards of which half are bad, committed in some order."""
    store = LocalStore.open(str(folder))
    policy = JobPolicy(**{**POLICY.__dict__, "start": 4})
    epochs = Epochs(store, policy)
    epochs.publish(16)
    for shard_id in order:
        level = 4 if shard_id < 8 else 3
        epochs.add(marker(shard_id, level=level, errors=3 if shard_id % 2 else 0))
        epochs.publish(16)
    return {name: store.read(name) for name in store.names("policy")}


def test_the_levels_depend_on_the_counts_and_not_on_the_order_of_the_shards(tmp_path):
    straight = written_levels(tmp_path / "straight", range(16))
    assert len(straight) == 4
    assert [read_epoch(content).rung for _, content in sorted(straight.items())] == [4, 4, 3, 3]
    for seed in range(5):
        order = random.Random(seed).sample(range(16), 16)
        assert written_levels(tmp_path / str(seed), order) == straight


def test_an_epoch_is_decided_once_all_up_to_two_before_it_are_committed(tmp_path):
    store = LocalStore.open(str(tmp_path))
    epochs = Epochs(store, POLICY)
    epochs.publish(100)
    assert list(store.names("policy")) == [epoch_name(0), epoch_name(1)]
    for shard_id in (0, 1, 3, 4, 5):
        epochs.add(marker(shard_id))
    epochs.publish(100)
    assert store.read(epoch_name(2)) is None
    epochs.add(marker(2))
    epochs.publish(100)
    assert store.read(epoch_name(2)) is not None
    assert store.read(epoch_name(3)) is None


def test_a_level_that_is_written_stays_whatever_is_counted_later(tmp_path):
    store = LocalStore.open(str(tmp_path))
    store.publish(epoch_name(0), EpochLevel(epoch=0, rung=1).as_json())
    epochs = Epochs(store, POLICY)
    epochs.publish(4)
    assert gate.level_of(0, POLICY, store, "round").rung == 1


def test_a_shard_whose_level_never_comes_gives_the_round_up_for_all_that_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "WAIT_S", 0.05)
    monkeypatch.setattr(gate, "POLL_S", 0.01)
    store = LocalStore.open(str(tmp_path))
    gate.refuse_if_stalled(9, POLICY, store, "round")
    with pytest.raises(gate.Stalled, match="shard 8"):
        gate.level_of(8, POLICY, store, "round")
    with pytest.raises(gate.Stalled, match="shard 9"):
        gate.refuse_if_stalled(9, POLICY, store, "round")
    gate.refuse_if_stalled(3, POLICY, store, "round")
    gate.forget_stall(store, "round")
    gate.refuse_if_stalled(9, POLICY, store, "round")
