"""What is left is read from the files alone, whichever crash left them so."""

import itertools

import pytest

from pipeline.dataflow.transcription import transcribe_shard
from pipeline.metrics import shard
from pipeline.output import attempts, commit, files
from pipeline.output.attempts import Lost
from pipeline.output.files import plan_name
from pipeline.output.local_store import LocalStore
from pipeline.output.state import IncompleteOutput, OutputState
from pipeline.schema import PLAN, SHARD_PLAN, SHARD_RESULT, TRANSCRIPTS, table_of
from tests.fakes import FakeEngine, audio_table, plan_row, read_recording, result

STAMP = shard.RunStamp(run_id="run", fingerprint="f", plan_hash="p", gpu_hour_usd=3.6)
ROUND = "run-1"
ROWS = [plan_row("a.wav"), plan_row("b.wav"), plan_row("c.wav", shard_id=1)]
WINDOW = [(0, 0.0, 5.0, [(0.0, 5.0)])]


@pytest.fixture
def store(tmp_path):
    store = LocalStore.open(str(tmp_path))
    store.publish(plan_name(0), files.parquet_bytes(table_of(PLAN, ROWS)))
    return store


@pytest.fixture
def ledger(store):
    return OutputState(store, STAMP, shard_hours=1.0)


def transcribed(shard_id, names, attempt=1, engine=None, overflow=(), **changes):
    """A `SHARD_RESULT` row as the transcribe stage makes it."""
    windows = [(index, *WINDOW[0][1:]) for index in range(len(names))]
    recordings = [read_recording(name, **changes) for name in names]
    table = audio_table(recordings, windows if "error_type" not in changes else [], overflow=overflow)
    row = transcribe_shard(table, engine or FakeEngine(), language="en").to_pylist()[0]
    for transcript in row["transcripts"]:
        transcript["shard_id"] = shard_id
    return row | {"shard_id": shard_id, "attempt": attempt}


def commit_row(store, row):
    commit.commit_shard(store, row | {"scorable": [False] * len(row["transcripts"])}, STAMP)


def leave_mark(store, unit, round_id=ROUND):
    """What is left of an attempt whose process died."""
    store.replace(f"{attempts.MARKS}/{unit}.{round_id}", b"")


def ids(units):
    return [
        (unit.shard_id, unit.attempt, tuple(unit.rows.column("recording_id").to_pylist())) for unit in units
    ]


def test_every_shard_of_a_new_plan_is_left(ledger):
    assert ids(ledger.units()) == [(0, 1, ("a.wav", "b.wav")), (1, 1, ("c.wav",))]


def test_a_committed_shard_is_not_left(store, ledger):
    commit_row(store, transcribed(0, ["a.wav", "b.wav"]))
    ledger.reload()
    assert ids(ledger.units()) == [(1, 1, ("c.wav",))]


def test_a_shard_that_died_twice_is_run_row_by_row(store, ledger):
    leave_mark(store, "shard-000000")
    assert ids(ledger.units())[0] == (0, 2, ("a.wav", "b.wav"))
    leave_mark(store, "shard-000000", "run-2")
    assert ids(ledger.units())[:2] == [(0, 3, ("a.wav",)), (0, 3, ("b.wav",))]


def test_an_attempt_that_came_back_leaves_no_mark(store):
    with attempts.marked(store, "shard-000000", ROUND):
        assert attempts.count_marks(store) == {"shard-000000": 1}
    assert not attempts.count_marks(store)


def test_an_exception_leaves_its_message(store):
    with pytest.raises(ValueError, match="bad"), attempts.marked(store, "shard-000000", ROUND):
        raise ValueError("bad luck")
    assert attempts.marks_left_in(store, ROUND) == {
        "shard-000000": Lost(node="", exception="ValueError: bad luck")
    }
    assert attempts.marks_left_in(store, "run-2") == {}


def test_a_stopped_run_leaves_no_marks(store):
    leave_mark(store, "shard-000000")
    leave_mark(store, "shard-000001", "other-1")
    attempts.forget_run(store, "run")
    assert attempts.count_marks(store) == {"shard-000001": 1}


def test_a_lost_node_is_not_the_fault_of_what_it_worked_on_three_times_at_most(store):
    unit = "shard-000000"
    for number in range(attempts.MAX_EXCUSED + 1):
        with pytest.raises(KeyboardInterrupt), attempts.marked(store, unit, f"run-{number}", "node-a"):
            raise KeyboardInterrupt
        assert attempts.marks_left_in(store, f"run-{number}") == {unit: Lost(node="node-a", exception="")}
        assert attempts.excuse(store, unit, f"run-{number}") == (number < attempts.MAX_EXCUSED)
    assert attempts.count_marks(store) == {unit: 1}
    assert attempts.count_excused(store) == attempts.MAX_EXCUSED
    attempts.forget_shard(store, 0)
    assert not attempts.count_marks(store)
    assert not attempts.count_excused(store)


def isolate(store):
    for number in (1, 2):
        leave_mark(store, "shard-000000", f"run-{number}")


def keep(store, name, **changes):
    row = transcribed(0, [name], attempt=3, **changes)
    attempts.keep_piece(store, attempts.row_unit(0, name, 0), table_of(SHARD_RESULT, [row]))


def test_the_row_that_kills_its_process_fails_and_its_neighbour_does_not(store, ledger):
    isolate(store)
    keep(store, "a.wav")
    lost = {attempts.row_unit(0, "b.wav", 0): ""}
    ledger.commit_pieces(lost, "fake")
    ledger.reload()
    found = {row["recording_id"]: row for row in ledger.transcripts(0).to_pylist()}
    assert (found["a.wav"]["status"], found["a.wav"]["text"]) == ("ok", "hello world")
    assert (found["b.wav"]["status"], found["b.wav"]["error_type"]) == ("failed", "crashed")
    assert "b.wav: failed 3 times, the last time: " in found["b.wav"]["error_message"]
    assert ledger.markers.to_pylist()[0]["attempts"] == 3
    assert ids(ledger.units()) == [(1, 1, ("c.wav",))]


def test_a_shard_of_which_a_row_is_neither_done_nor_lost_waits(store, ledger):
    isolate(store)
    keep(store, "a.wav")
    ledger.commit_pieces({}, "fake")
    ledger.reload()
    assert ids(ledger.units())[0] == (0, 3, ("b.wav",))


def test_a_shard_whose_every_row_died_is_committed_with_failed_rows_alone(store, ledger):
    isolate(store)
    ledger.commit_pieces({attempts.row_unit(0, name, 0): "" for name in ("a.wav", "b.wav")}, "fake")
    ledger.reload()
    marker = ledger.markers.to_pylist()[0]
    assert (marker["num_failed"], marker["device_s"], marker["rtfx"]) == (2, 0.0, None)


def test_a_unit_is_a_row_of_the_plan_of_its_shard(ledger):
    table = ledger.units()[0].table()
    assert table.schema.equals(SHARD_PLAN)
    assert table.to_pylist() == [{"shard_id": 0, "attempt": 1, "rows": ROWS[:2]}]


def test_a_row_that_three_drivers_did_not_outlive_is_given_up(store, ledger):
    isolate(store)
    keep(store, "a.wav")
    for number in range(3):
        assert ids(ledger.units())[0] == (0, 3, ("b.wav",))
        leave_mark(store, attempts.row_unit(0, "b.wav", 0), f"dead{number}-1")
    assert ids(ledger.units()) == [(1, 1, ("c.wav",))]
    ledger.commit_pieces({}, "fake")
    ledger.reload()
    assert [row["status"] for row in ledger.transcripts(0).to_pylist()] == ["ok", "failed"]


def test_pieces_give_the_measures_of_a_whole_shard(store, ledger):
    isolate(store)
    sparse = FakeEngine(answer=lambda samples, language: result(kept_positions=750))
    keep(store, "a.wav", engine=sparse)
    keep(store, "b.wav")
    ledger.commit_pieces({}, "fake")
    ledger.reload()
    marker = ledger.markers.to_pylist()[0]
    assert (marker["num_windows"], marker["kept_positions"], marker["sparsity_mean"]) == (2, 2250, 0.25)
    assert (marker["sparsity_min"], marker["sparsity_max"]) == (0.0, 0.5)
    assert list(store.names(attempts.PIECES)) == []


def test_overflow_becomes_the_next_round_of_the_plan_once_its_round_is_whole(store, ledger):
    rest = plan_row("b.wav", part=1, offset_s=7200.0)
    commit_row(store, transcribed(0, ["a.wav", "b.wav"], overflow=[rest]))
    ledger.reload()
    assert ids(ledger.units()) == [(1, 1, ("c.wav",))]
    commit_row(store, transcribed(1, ["c.wav"]))
    ledger.reload()
    assert ids(ledger.units()) == [(2, 1, ("b.wav",))]
    assert OutputState(store, STAMP, shard_hours=1.0).plan.equals(ledger.plan)


def test_failed_rows_alone_run_again_and_what_was_fine_stays(store, ledger):
    fine, failed = (
        transcribed(0, ["a.wav"]),
        transcribed(0, ["b.wav"], error_type="missing", error_message="gone"),
    )
    fine["transcripts"] += failed["transcripts"]
    commit_row(store, fine)
    commit_row(store, transcribed(1, ["c.wav"]))
    ledger.reload()
    assert ledger.reopen_failed() == 1
    assert ledger.done() == {1}
    assert ids(ledger.units()) == [(0, 3, ("b.wav",))]
    keep(store, "b.wav")
    ledger.commit_pieces({}, "fake")
    ledger.reload()
    assert [row["status"] for row in ledger.transcripts(0).to_pylist()] == ["ok", "ok"]
    assert ledger.markers.to_pylist()[0]["num_windows"] == 2


def test_a_missing_row_is_found_by_its_id(store, ledger):
    commit_row(store, transcribed(0, ["a.wav", "x.wav"]))
    commit_row(store, transcribed(1, ["c.wav"]))
    ledger.reload()
    with pytest.raises(IncompleteOutput, match=r"shard-000000.* b\.wav"):
        ledger.check_rows()


def test_what_had_no_room_beside_its_neighbours_is_not_lost_when_it_has_room_alone(store, ledger):
    """A whole attempt dies between transcripts and marker, and the shard is then done row by row."""
    whole = transcribed(0, ["a.wav"], overflow=[ROWS[1]])
    store.publish(files.transcripts_name(0), files.parquet_bytes(table_of(TRANSCRIPTS, whole["transcripts"])))
    isolate(store)
    for name in ("a.wav", "b.wav"):
        keep(store, name)
    commit_row(store, transcribed(1, ["c.wav"]))
    ledger.commit_pieces({}, "fake")
    ledger.reload()
    assert files.read_overflow(store, [0])[0].to_pylist() == [ROWS[1]]
    assert ids(ledger.units()) == [(2, 1, ("b.wav",))]


@pytest.mark.parametrize("num_done", range(4))
def test_any_crash_point_of_a_commit_loses_and_doubles_nothing(store, ledger, monkeypatch, num_done):
    """The commit dies before its n-th file; a second one makes the shard whole."""
    calls = itertools.count()
    publish = LocalStore.publish

    def dying(self, name, content):
        if next(calls) == num_done:
            raise KeyboardInterrupt
        return publish(self, name, content)

    row = transcribed(0, ["a.wav", "b.wav"], overflow=[plan_row("b.wav", part=1, offset_s=60.0)])
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "publish", dying)
        if num_done < 3:
            with pytest.raises(KeyboardInterrupt):
                commit_row(store, row)
        else:
            commit_row(store, row)
    commit_row(store, row)
    ledger.reload()
    assert ledger.done() == {0}
    assert [found["recording_id"] for found in ledger.transcripts(0).to_pylist()] == ["a.wav", "b.wav"]
    assert files.read_overflow(store, [0])[0].num_rows == 1
