"""Calibration, shadow and epochs without Ray: what decides, and that nothing else does."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from pipeline.adaptive import gate, sampling
from pipeline.adaptive.calibration import calibrate_unit, decide, too_small
from pipeline.adaptive.epochs import EpochLevel, Epochs, next_epoch, read_epoch
from pipeline.adaptive.files import DECISION, epoch_name, sample_name
from pipeline.adaptive.job_policy import JobPolicy, default_ladder
from pipeline.adaptive.shadow import ShardLevel
from pipeline.adaptive.summary import summarise_policy
from pipeline.dataflow.transcription import transcribe_shard
from pipeline.driver.policy import policy_from_calibration
from pipeline.engine.sparsify.level import Level
from pipeline.output import files
from pipeline.output.local_store import LocalStore
from pipeline.planning import make_plan
from pipeline.reading.shard_reader import ReadOptions, ShardReader
from pipeline.schema import PLAN, SAMPLE, SAMPLE_RESULT, table_of
from pipeline.sources.listing import list_recordings
from tests.fakes import RATE, audio_table, plan_row, read_recording
from tests.lossy import LossyEngine

LADDER = default_ladder(2, "attention")
POLICY = JobPolicy(ladder=LADDER, start=3, budget=0.01, share=0.02, salt="plan", epoch_shards=4)


def plan(num_rows, seconds):
    """Recordings of 16 kHz wave files, one to a shard."""
    rows = [plan_row(f"{i:05d}.wav", shard_id=i, bytes=int(seconds * 32_000)) for i in range(num_rows)]
    return table_of(PLAN, rows)


def seconds_of(units):
    return [row["duration_s"] or row["bytes"] / 32_000 for unit in units for row in unit.to_pylist()]


# The draw


@pytest.mark.parametrize(
    ("num_rows", "seconds"), [(40_000, 20.0), (3000, 45.0), (60, 3600.0), (12, 10_000.0)]
)
def test_the_sample_is_at_most_a_fiftieth_of_the_audio_in_units_of_five_minutes(num_rows, seconds):
    found = plan(num_rows, seconds)
    units = sampling.draw_units(found, "hash", shard_s=3600.0)
    drawn_s = sum(seconds_of(units))
    room_s = min(sampling.MAX_SAMPLE_S, 0.02 * num_rows * seconds)
    assert 0.8 * room_s <= drawn_s <= room_s
    assert max(sum(seconds_of([unit])) for unit in units) <= sampling.STRETCH_S
    ids = [row["recording_id"] for unit in units for row in unit.to_pylist()]
    assert len(set(ids)) == len(ids)


def test_the_sample_is_the_same_for_the_same_plan_and_another_for_another():
    found = plan(3000, 45.0)
    units = sampling.draw_units(found, "hash", shard_s=3600.0)
    assert sampling.draw_units(found, "hash", shard_s=3600.0) == units
    assert sampling.draw_units(found, "other", shard_s=3600.0) != units


def test_of_a_long_recording_a_stretch_inside_it_is_drawn():
    units = sampling.draw_units(plan(60, 3600.0), "hash", shard_s=3600.0)
    for row in (row for unit in units for row in unit.to_pylist()):
        assert row["duration_s"] >= sampling.MIN_STRETCH_S
        assert row["offset_s"] == 0 or 30 <= row["offset_s"] <= 3600 - row["duration_s"]


def test_a_job_that_is_too_small_has_no_sample():
    assert sampling.draw_units(plan(24, 1000.0), "hash", shard_s=3600.0) == []
    assert sampling.draw_units(plan(26, 1000.0), "hash", shard_s=3600.0) != []


def test_a_small_job_casts_a_larger_shadow():
    shares = [sampling.shadow_share(plan(num, 3600.0)) for num in (2, 20, 1000)]
    assert shares == [0.1, 0.05, 0.02]


@pytest.mark.slow
def test_a_drawn_stretch_is_read_from_its_place_in_the_recording(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "MAX_SHARE", 0.4)
    monkeypatch.setattr(sampling, "MIN_WORDS", 100)
    noise = np.random.default_rng(1).integers(-3000, 3000, 600 * RATE).astype(np.int16)
    soundfile.write(tmp_path / "long.wav", noise, RATE)
    found = make_plan(list_recordings([str(tmp_path)]).recordings, shard_hours=1.0)
    (unit,) = sampling.draw_units(found, "hash", shard_s=3600.0)
    (row,) = unit.to_pylist()
    assert row["offset_s"] > 0
    with ShardReader(
        ReadOptions(voice_activity=False, channels="mix", max_hours=24.0, shard_hours=1.0)
    ) as reader:
        read = reader.read(-1, 1, [row]).to_pylist()[0]
    assert read["recordings"][0]["error_type"] is None
    assert abs(read["windows"][0]["start_s"] - row["offset_s"]) <= 30
    assert abs(read["recordings"][0]["duration_s"] - row["duration_s"]) <= 60
    first = round(read["windows"][0]["start_s"] * RATE)
    assert read["samples"][:RATE] == noise[first : first + RATE].tolist()


# The decision


def sample_rows(
    losses, *, num_windows=100, words=60, kept=(1300, 1100, 900, 700, 500), retried=None, unsure=0
):
    """Rows of `SAMPLE`: errors spread evenly over windows, by level; `retried` windows by level.

    Dense is as sure of window n as of any before it and surer than of the next; sparse text of `unsure`
    windows is less sure than any of them.
    """
    rows = []
    for level, loss in enumerate(losses, 1):
        num_errors = round(loss * num_windows * words)
        again = (retried or {}).get(level, 0)
        rows += [
            {
                "unit": window % 3, "recording_id": f"{window}.wav", "start_s": 0.0, "level": level,
                "num_errors": num_errors // num_windows + (window < num_errors % num_windows),
                "num_words": words, "kept_positions": kept[level - 1], "total_positions": 1500,
                "retried_positions": 1500 if window < again else 0, "dense_positions": 1500,
                "dense_device_s": 1.0, "sparse_device_s": 0.5,
                "logprob": -0.9 if window < unsure else -0.1, "dense_logprob": -0.2 - window / 1000,
            }
            for window in range(num_windows)
        ]  # fmt: skip
    return rows


def test_the_sparsest_level_before_the_first_that_fails_is_taken():
    decision = decide(sample_rows([0.0, 0.001, 0.002, 0.03, 0.0]), 5, 0.01)
    assert decision.start == 3
    assert [level.passed for level in decision.levels] == [
        True,
        True,
        True,
        False,
    ]  # the fifth is not looked at


def test_the_bound_decides_and_not_the_rate():
    few, many = (decide(sample_rows([0.006], num_windows=num), 1, 0.01) for num in (40, 1000))
    assert (few.start, many.start) == (0, 1)
    assert few.levels[0].num_errors / few.levels[0].num_words == pytest.approx(0.006, rel=0.1)


def test_unsure_windows_cost_a_dense_decoding_and_lose_nothing():
    lossy = [row | {"num_errors": 30 * (row["logprob"] < -0.5)} for row in sample_rows([0.0], unsure=4)]
    decision = decide(lossy, 1, 0.01)
    assert decision.min_logprob == pytest.approx(-0.2 - 95 / 1000)  # five in a hundred are below
    assert (decision.start, decision.levels[0].num_errors) == (1, 0)
    assert decision.levels[0].cost == pytest.approx(1300 / 1500 + 0.04)
    assert decision.levels[0].retried_share == pytest.approx(0.04)
    assert decide([row | {"logprob": None} for row in lossy], 1, 0.01).start == 0
    dense = [row | {"kept_positions": 1500} for row in lossy]
    assert decide(dense, 1, 0.01).levels[0].num_errors == 120


def test_the_ladder_of_a_job_and_what_it_remembers_have_the_floor_of_its_sample(tmp_path):
    rows = [row | {"num_errors": 30 * (row["logprob"] < -0.5)} for row in sample_rows([0.0], unsure=4)]
    store = LocalStore.open(str(tmp_path))
    long = plan(3000, 45.0)
    units = len(sampling.draw_units(long, "hash", shard_s=3600.0))

    def decode(units, _calibration, _number):
        own = [[row for row in rows if row["window_unit"] == unit] for unit in range(len(units))]
        for number, found in enumerate(own):
            table = table_of(SAMPLE, [{k: v for k, v in row.items() if k != "window_unit"} for row in found])
            store.publish(sample_name(number), files.parquet_bytes(table))

    rows = [row | {"unit": n % units, "window_unit": n % units} for n, row in enumerate(rows)]
    policy = policy_from_calibration(store, LADDER[:1], long, "hash", 0.01, shard_s=3600.0, run_units=decode)
    assert policy.ladder[0].min_logprob == json.loads(store.read(DECISION))["min_logprob"] < -0.2
    assert policy.start == 1
    assert sum(errors for errors, _ in policy.calibrated[0]) == 0


def test_a_level_whose_retries_cost_more_than_it_saves_is_not_taken():
    decision = decide(sample_rows([0.0, 0.0, 0.0], retried={3: 50}), 3, 0.01)
    assert decision.start == 2
    assert decision.levels[2].cost == pytest.approx(900 / 1500 + 0.5)
    assert decision.levels[2].retried_share == 0.5


def test_retries_that_dense_needs_too_are_not_held_against_a_level():
    rows = [
        row | {"retried_positions": 1500, "dense_positions": 3000} for row in sample_rows([0.0], kept=(900,))
    ]
    decision = decide(rows, 1, 0.01)
    assert (decision.start, decision.levels[0].cost) == (1, pytest.approx(2400 / 3000))


def test_where_no_level_is_good_enough_the_job_is_dense():
    assert decide(sample_rows([0.05, 0.0]), 2, 0.01).start == 0


def test_a_sample_of_few_words_says_that_the_job_is_dense():
    decision = decide(sample_rows([0.0], num_windows=30), 1, 0.01)
    assert decision.start == 0
    assert "1800 dense words, 2000 are needed" in decision.reason


def test_a_level_that_a_unit_was_not_decoded_at_has_failed():
    rows = [row for row in sample_rows([0.0, 0.0]) if (row["unit"], row["level"]) != (1, 2)]
    assert decide(rows, 2, 0.01).start == 1


def test_the_order_in_which_units_came_back_changes_nothing():
    rows = sample_rows([0.001, 0.004, 0.009])
    assert decide(random.Random(1).sample(rows, len(rows)), 3, 0.01) == decide(rows, 3, 0.01)


def audio(num_windows=4):
    recordings = [read_recording(f"{i}.wav") for i in range(num_windows)]
    return audio_table(recordings, [(i, 0.0, 2.0 + i, [(0.0, 2.0 + i)]) for i in range(num_windows)])


def calibrated(engine, **options):
    defaults = {"unit": 2, "language": "en", "ladder": (Level(share=1.0), Level(share=0.5)), "max_errors": 99}
    table = calibrate_unit(audio(), engine, **(defaults | options))
    assert table.schema.equals(SAMPLE_RESULT)
    return table.to_pylist()[0]["windows"]


def test_a_unit_is_decoded_at_every_level_beside_dense():
    found = calibrated(LossyEngine(loss=2.0))
    assert [(row["level"], row["recording_id"]) for row in found] == [
        (level, f"{i}.wav") for level in (1, 2) for i in range(4)
    ]
    assert [row["num_errors"] for row in found] == [0] * 4 + [1] * 4
    assert {row["num_words"] for row in found} == {20}
    assert {row["unit"] for row in found} == {2}


def test_a_hopeless_level_is_the_last_that_is_tried():
    levels = (Level(share=0.5), Level(share=0.4))
    found = calibrated(LossyEngine(loss=2.0), ladder=levels, max_errors=3)
    assert {row["level"] for row in found} == {1}


# The shadow


def shadow_of(share, engine=None, rung=2):
    sparsity = ShardLevel(rung=rung, level=Level(share=0.5) if rung else None, share=share, salt="plan")
    row = transcribe_shard(audio(), engine or LossyEngine(loss=2.0), language="en", sparsity=sparsity)
    return row.to_pylist()[0]


def test_the_rows_hold_the_sparse_text_of_the_shadow_too():
    with_shadow, without = shadow_of(1.0), shadow_of(0.0)
    assert with_shadow["transcripts"] == without["transcripts"]
    measures = with_shadow["measures"]
    assert (measures["num_shadow"], measures["shadow_num_words"], measures["shadow_num_errors"]) == (4, 80, 4)
    assert (measures["shadow_dense_device_s"], measures["shadow_sparse_device_s"]) == (4.0, 2.0)
    assert measures["device_s"] == without["measures"]["device_s"] + 4.0
    assert (measures["level"], without["measures"]["num_shadow"]) == (2, 0)


def test_a_dense_shard_casts_no_shadow():
    measures = shadow_of(1.0, rung=0)["measures"]
    assert (measures["level"], measures["num_shadow"], measures["shadow_num_words"]) == (0, 0, 0)


def test_windows_are_drawn_for_the_shadow_each_by_itself():
    drawn = [sampling.is_drawn(0.1, "plan", f"{i}.wav", 0, 30.0) for i in range(5000)]
    assert 0.08 < sum(drawn) / 5000 < 0.12
    assert not any(sampling.is_drawn(0.0, "plan", f"{i}.wav", 0, 30.0) for i in range(100))


# The epochs


def marker(shard_id, *, level=3, errors=0, words=600):
    return {
        "shard_id": shard_id, "level": level, "shadow_num_errors": errors, "shadow_num_words": words
    }  # fmt: skip


def before(**changes):
    return EpochLevel(**({"epoch": 4, "rung": 3} | changes))


def test_a_level_within_the_budget_stays_and_is_looked_at_again_when_the_shadow_has_grown():
    after = next_epoch(before(), [marker(i) for i in range(8)], POLICY)
    assert (after.epoch, after.rung, after.num_looks, after.next_look_words) == (5, 3, 1, 7200)
    assert after.look.passed
    assert next_epoch(after, [marker(i) for i in range(8)], POLICY).look is None


def test_a_level_over_the_budget_is_left_for_the_next_milder_one():
    after = next_epoch(before(num_looks=2), [marker(i, errors=9) for i in range(8)], POLICY)
    assert (after.rung, after.num_looks, after.next_look_words) == (2, 3, sampling.MIN_WORDS)
    assert (after.look.num_errors, after.look.num_words) == (72, 4800)


def test_little_shadow_decides_nothing():
    after = next_epoch(before(), [marker(i, errors=9) for i in range(3)], POLICY)
    assert (after.rung, after.num_looks, after.look) == (3, 0, None)


def test_shadows_of_other_levels_do_not_count():
    shards = [marker(i, errors=50, level=2) for i in range(8)] + [marker(i) for i in range(8, 16)]
    assert next_epoch(before(), shards, POLICY).look.num_errors == 0


def test_what_the_job_was_calibrated_with_counts():
    policy = JobPolicy(**{**POLICY.__dict__, "calibrated": ((), (), ((30, 600),) * 20)})
    assert next_epoch(before(), [marker(i) for i in range(8)], policy).rung == 2


def test_looks_are_used_up_and_dense_stays_dense():
    lossy = [marker(i, errors=50) for i in range(8)]
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
        epochs.add(marker(shard_id, level=level, errors=30 if shard_id % 2 else 0))
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


# What the report says


def summarised(folder, markers, rows=()):
    store = LocalStore.open(str(folder))
    decision = decide(rows, 5, 0.01) if rows else too_small("the job has less than 7 h of audio")
    ladder = tuple(level.as_dict() for level in LADDER)
    store.publish(DECISION, replace(decision, ladder=ladder).as_json())
    if rows:
        store.publish(sample_name(0), files.parquet_bytes(table_of(SAMPLE, rows)))
    return summarise_policy(store, markers, 0.01)


def timed(shard_id, **counts):
    times = {"num_shadow": 5, "shadow_dense_device_s": 4.0, "shadow_sparse_device_s": 3.0}
    return marker(shard_id, **counts) | times


def test_the_report_states_loss_bound_levels_and_what_was_saved(tmp_path):
    shards = [timed(0, level=2, errors=3), timed(1, level=2, errors=3), timed(2, level=0, words=0)]
    found = summarised(tmp_path, shards, sample_rows([0.0, 0.001, 0.05]))
    assert found["levels"] == {"0": 1, "2": 2}
    assert found["loss_num_words"] == 2 * 600 + 6000
    assert found["loss"] == pytest.approx((6 + 6) / 7200)
    assert found["loss"] < found["loss_bound"] < 0.01
    assert (found["num_shadow"], found["shadow_saved"]) == (10, 0.25)
    assert found["calibration_device_s"] == pytest.approx(100 * 1.0 + 300 * 0.5)
    assert found["reason"] == "the cheapest level within the budget"


def test_the_report_of_a_job_that_ran_dense_says_why(tmp_path):
    found = summarised(tmp_path, [timed(0, level=0, words=0)])
    assert (found["loss"], found["loss_bound"], found["levels"]) == (None, None, {"0": 1})
    assert found["reason"] == "the job has less than 7 h of audio"
    assert summarise_policy(LocalStore.open(str(tmp_path)), [], None) is None
