"""An archive that grows over days, with the real driver and a fake model in place of Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.config import JobRequest, OptionError, RunOptions
from pipeline.dataflow import stages
from pipeline.driver import archive, job
from pipeline.driver.lock import DriverLock, OutputBusy
from pipeline.output.files import read_transcripts
from pipeline.output.store import open_store
from pipeline.reading.shard_reader import ReadOptions
from pipeline.results import report, report_plots
from pipeline.results.report_source import read_output
from pipeline.sources import opening
from tests.fakes import RATE, round_context

DAYS = ("2026-03-01", "2026-03-02", "2026-03-03")


def work_off(ledger, request, options, run, record, load, *, after_shard=lambda: None):
    """The stages of the graph one after the other, without Ray."""
    reading = replace(ReadOptions.of(options), voice_activity=False)
    round_ = round_context(
        ledger.store, stamp=ledger.stamp, round_id=f"{ledger.stamp.run_id}-1", reading=reading
    )
    engine = stages.TranscribeShard(round_)
    while units := ledger.units():
        for unit in units:
            audio = stages.read_shard(unit.table(), round_)
            stages.commit_result(engine(audio), round_)
            after_shard()
        ledger.commit_pieces({}, options.model)
        ledger.reload()


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr(job, "_work_off", work_off)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def write(folder, *names, value=None, seconds=1):
    """Recordings of one value; where none is given, files of different names differ."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        level = 1000 + (zlib.crc32(name.encode()) % 1000 if value is None else value)
        soundfile.write(folder / name, np.full(seconds * RATE, level, np.int16), RATE)


def request(source, **options):
    defaults = {"language": "en", "voice_activity": False, "sparsify_layer": 1, "task": "transcribe"}
    return JobRequest(inputs=(str(source),), output="", model="demo", options=defaults | options)


def update(source, tmp_path, day=DAYS[0], *, retry_failed=False, **options):
    where, run = str(tmp_path / "archive"), RunOptions()
    return archive.update_archive(where, request(source, **options), run, day=day, retry_failed=retry_failed)


def outputs(tmp_path):
    return [str(path) for path in sorted((tmp_path / "archive" / "runs").iterdir())]


def times_done(tmp_path):
    return Counter(row["recording_id"] for path in outputs(tmp_path) for row in read_transcripts(path))


def interrupt(*_arguments, **_options):
    raise KeyboardInterrupt


def stop_after(num_shards):
    left = iter([None] * (num_shards - 1))

    def count_down():
        try:
            next(left)
        except StopIteration:
            raise KeyboardInterrupt from None

    return lambda *arguments: work_off(*arguments, after_shard=count_down)


@contextmanager
def stopping(monkeypatch, where, name, by=interrupt):
    """Stop what happens in the block when it comes to a function."""
    with monkeypatch.context() as patch:
        patch.setattr(where, name, by)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_three_days_are_three_runs_no_recording_twice_and_three_bars(source, tmp_path):
    for number, day in enumerate(DAYS):
        write(source, f"{day}/a.wav", f"{day}/b.wav", seconds=number + 1)
        done = update(source, tmp_path, day)
        assert (list(done.runs), len(done.survey.new), done.survey.num_listed) == ([day], 2, 2 * number + 2)
    assert [Path(path).name for path in outputs(tmp_path)] == list(DAYS)
    assert set(times_done(tmp_path).values()) == {1}
    assert len(times_done(tmp_path)) == 6
    assert all("Transcription report" in Path(path, "report.html").read_text() for path in outputs(tmp_path))
    found = report.make_report([read_output(path) for path in outputs(tmp_path)])
    assert (found.num_recordings, found.num_failed, found.total.audio_s) == (6, 0, 12.0)
    assert len(report_plots.cost_bars(found).bars) == 3
    assert update(source, tmp_path, "2026-03-04").runs == {}
    ledger = pq.read_table(tmp_path / "archive" / "ledger")
    assert sorted(ledger.column("run").to_pylist()) == sorted(DAYS * 2)


def test_two_runs_of_one_day_have_names_of_their_own(source, tmp_path):
    for name in ("a.wav", "b.wav"):
        write(source, name)
        update(source, tmp_path)
    assert [Path(path).name for path in outputs(tmp_path)] == ["2026-03-01", "2026-03-01-2"]


def test_a_changed_recording_is_transcribed_again_and_a_touched_folder_is_not(source, tmp_path):
    write(source, "a.wav", "b.wav")
    update(source, tmp_path)
    write(source, "a.wav", seconds=2)
    os.utime(source)
    done = update(source, tmp_path, DAYS[1])
    assert [recording.recording_id for recording in done.survey.changed] == ["a.wav"]
    assert done.survey.new == ()
    assert times_done(tmp_path) == {"a.wav": 2, "b.wav": 1}


def same_content(done):
    return {row["recording_id"]: row["same_as"] for row in done.survey.same}


def test_a_new_time_stamp_or_name_of_known_content_is_entered_and_not_transcribed(
    source, tmp_path, monkeypatch
):
    for number, name in enumerate(("a.wav", "b.wav", "c.wav")):
        write(source, name, value=number)
    update(source, tmp_path)
    monkeypatch.setattr(job, "_work_off", interrupt)
    os.utime(source / "a.wav", (1, 1))
    (source / "sub").mkdir()
    (source / "b.wav").rename(source / "sub" / "moved.wav")
    (source / "copy.wav").write_bytes((source / "c.wav").read_bytes())
    done = update(source, tmp_path, DAYS[1])
    assert (done.runs, done.survey.pending) == ({}, ())
    assert same_content(done) == {"a.wav": None, "sub/moved.wav": "b.wav", "copy.wav": "c.wav"}
    assert {row["run"] for row in done.survey.same} == {DAYS[0]}
    assert update(source, tmp_path, DAYS[2]).survey.same == ()  # it was entered
    (source / "sub" / "moved.wav").rename(source / "again.wav")
    assert same_content(update(source, tmp_path, DAYS[2])) == {"again.wav": "b.wav"}


def test_known_content_is_transcribed_again_where_that_is_asked_for(source, tmp_path):
    write(source, "a.wav")
    update(source, tmp_path)
    os.utime(source / "a.wav", (1, 1))
    asked, where = replace(request(source), duplicates="transcribe"), str(tmp_path / "archive")
    done = archive.update_archive(where, asked, RunOptions(), day=DAYS[1])
    assert (done.survey.same, done.runs[DAYS[1]]["num_recordings"]) == ((), 1)


def test_known_and_new_content_together_are_one_run(source, tmp_path):
    write(source, "a.wav")
    update(source, tmp_path)
    os.utime(source / "a.wav", (1, 1))
    write(source, "b.wav", value=5)
    done = update(source, tmp_path, DAYS[1])
    assert (list(done.runs), same_content(done)) == ([DAYS[1]], {"a.wav": None})
    assert done.runs[DAYS[1]]["num_recordings"] == 1
    assert update(source, tmp_path, DAYS[2]).survey.same == ()


def test_other_content_of_the_same_size_is_transcribed(source, tmp_path):
    write(source, "a.wav", value=1)
    update(source, tmp_path)
    write(source, "a.wav", value=2)
    write(source, "b.wav", value=3)
    done = update(source, tmp_path, DAYS[1])
    assert (done.survey.same, done.runs[DAYS[1]]["num_recordings"]) == ((), 2)


def test_a_member_of_a_tar_that_grew_is_known(source, tmp_path):
    write(source, "a.wav", value=1)
    write(source, "b.wav", value=2)
    box = tmp_path / "box.tar"
    with tarfile.open(box, "w") as tar:
        tar.add(source / "a.wav", "a.wav")
    update(box, tmp_path)
    with tarfile.open(box, "a") as tar:
        tar.add(source / "b.wav", "b.wav")
    done = update(box, tmp_path, DAYS[1])
    assert (same_content(done), done.runs[DAYS[1]]["num_recordings"]) == ({"box.tar/a.wav": None}, 1)
    assert same_content(update(source, tmp_path, DAYS[2])) == {
        "a.wav": "box.tar/a.wav",
        "b.wav": "box.tar/b.wav",
    }


def test_what_a_manifest_asks_of_a_recording_is_part_of_its_content(source, tmp_path):
    write(source, "a.wav")
    lines = [{"path": "source/a.wav", "id": "plain"}]
    path = tmp_path / "m.jsonl"

    def listed(*more):
        path.write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, *more]))
        return path

    update(listed(), tmp_path)
    clip = {"path": "source/a.wav", "id": "clip", "offset": 0.25}
    prompted = {"path": "source/a.wav", "id": "prompted", "prompt": "Hello"}
    done = update(listed(clip, prompted, {"path": "source/a.wav", "id": "other"}), tmp_path, DAYS[1])
    assert same_content(done) == {"other": "plain"}
    assert done.runs[DAYS[1]]["num_recordings"] == 2


def test_a_broken_recording_is_not_tried_under_another_name_but_when_asked(source, tmp_path):
    (source / "broken.wav").write_bytes(b"RIFF, but nothing else")
    update(source, tmp_path)
    (source / "broken.wav").rename(source / "still.wav")
    assert update(source, tmp_path, DAYS[1]).runs == {}
    again = update(source, tmp_path, DAYS[2], retry_failed=True)
    assert again.runs[DAYS[2]]["num_failed"] == 1


def test_a_run_stopped_between_its_name_and_its_ledger_enters_known_content_too(
    source, tmp_path, monkeypatch
):
    write(source, "a.wav")
    update(source, tmp_path)
    os.utime(source / "a.wav", (1, 1))
    with stopping(monkeypatch, archive, "_enter", interrupt):
        update(source, tmp_path, DAYS[1])
    assert same_content(update(source, tmp_path, DAYS[2])) == {"a.wav": None}
    ledger = {path.stem for path in (tmp_path / "archive" / "ledger").iterdir()}
    assert ledger == {DAYS[0], DAYS[1]}


def test_a_run_that_was_stopped_is_gone_on_with_and_then_what_is_new(source, tmp_path, monkeypatch):
    write(source, "a.wav", "b.wav", "c.wav")
    small = {"shard_hours": 1 / 3600}
    with stopping(monkeypatch, job, "_work_off", stop_after(2)):
        update(source, tmp_path, **small)
    committed = {path: path.stat().st_mtime_ns for path in (tmp_path / "archive/runs").rglob("metrics/*")}
    assert len(committed) == 2
    write(source, "late.wav")
    done = update(source, tmp_path, DAYS[1], **small)
    assert list(done.runs) == [DAYS[0], DAYS[1]]
    assert all(path.stat().st_mtime_ns == time for path, time in committed.items())
    assert times_done(tmp_path) == dict.fromkeys(("a.wav", "b.wav", "c.wav", "late.wav"), 1)


@pytest.mark.parametrize("step", ["_make_plan", "_finish"])
def test_a_run_stopped_before_its_plan_or_after_its_last_row_is_the_same_run(
    source, tmp_path, monkeypatch, step
):
    write(source, "a.wav")
    with stopping(monkeypatch, job, step, interrupt):
        update(source, tmp_path)
    assert list(update(source, tmp_path, DAYS[1]).runs) == [DAYS[0]]
    assert times_done(tmp_path) == {"a.wav": 1}


def test_a_run_stopped_before_its_ledger_is_entered_and_not_repeated(source, tmp_path, monkeypatch):
    write(source, "a.wav")
    with stopping(monkeypatch, archive, "_ledger_rows", interrupt):
        update(source, tmp_path)
    monkeypatch.setattr(job, "_work_off", interrupt)
    done = update(source, tmp_path, DAYS[1])
    assert (list(done.runs), done.survey.pending) == ([DAYS[0]], ())


def test_a_stopped_run_with_other_options_is_refused_by_name(source, tmp_path, monkeypatch):
    write(source, "a.wav")
    with stopping(monkeypatch, job, "_work_off", interrupt):
        update(source, tmp_path)
    with pytest.raises(OptionError, match=r"options it began with.*--language was en and is now es"):
        update(source, tmp_path, language="es")


def test_files_that_arrive_while_a_run_works_are_taken_next_time(source, tmp_path, monkeypatch):
    write(source, "a.wav")
    with monkeypatch.context() as patch:
        arrive = {"after_shard": lambda: write(source, "late.wav")}
        patch.setattr(job, "_work_off", lambda *arguments: work_off(*arguments, **arrive))
        update(source, tmp_path)
    assert times_done(tmp_path) == {"a.wav": 1}
    assert len(update(source, tmp_path, DAYS[1]).survey.new) == 1
    assert times_done(tmp_path) == {"a.wav": 1, "late.wav": 1}


def test_of_two_at_once_the_second_ends_with_1_and_names_the_first(source, tmp_path):
    write(source, "a.wav")
    store = open_store(str(tmp_path / "archive"))
    command = [sys.executable, "-m", "jobs.archive", str(source), "--output", str(store.root)]
    with DriverLock(store, "first"):
        with pytest.raises(OutputBusy):
            update(source, tmp_path)
        done = subprocess.run([*command, "--model", "demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "run first works on it" in done.stderr
    assert not (tmp_path / "archive" / "runs").exists()


def test_a_broken_recording_is_not_tried_every_day_but_when_asked(source, tmp_path):
    write(source, "a.wav")
    (source / "broken.wav").write_bytes(b"RIFF, but nothing else")
    assert update(source, tmp_path).runs[DAYS[0]]["num_failed"] == 1
    assert update(source, tmp_path, DAYS[1]).runs == {}
    again = update(source, tmp_path, DAYS[1], retry_failed=True)
    assert again.runs[DAYS[1]]["num_recordings"] == 1


def test_what_the_storage_failed_on_is_tried_again(source, tmp_path, monkeypatch):
    write(source, "a.wav", "b.wav")

    def fail(place, max_bytes):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(opening, "_open", fail)
        assert update(source, tmp_path).runs[DAYS[0]]["errors"] == {"unreadable": 2}
    again = update(source, tmp_path, DAYS[1])
    assert again.runs[DAYS[1]]["num_ok"] == 2
    assert update(source, tmp_path, DAYS[2]).runs == {}


def test_a_recording_that_changed_under_a_run_is_taken_next_time(source, tmp_path, monkeypatch):
    write(source, "a.wav", "b.wav")
    with monkeypatch.context() as patch:
        change = {"after_shard": lambda: write(source, "b.wav", seconds=3)}
        patch.setattr(job, "_work_off", lambda *arguments: work_off(*arguments, **change))
        first = update(source, tmp_path, shard_hours=1 / 3600)
    assert first.runs[DAYS[0]]["errors"] == {"changed": 1}
    second = update(source, tmp_path, DAYS[1], shard_hours=1 / 3600)
    assert (second.runs[DAYS[1]]["num_ok"], second.runs[DAYS[1]]["num_recordings"]) == (1, 1)


def test_members_of_a_container_are_recordings_of_their_own(source, tmp_path):
    write(source, "a.wav", "b.wav")
    box = tmp_path / "box.tar"
    with tarfile.open(box, "w") as tar:
        tar.add(source / "a.wav", "a.wav")
        tar.add(source / "b.wav", "b.wav")
    done = update(box, tmp_path)
    assert done.runs[DAYS[0]]["num_ok"] == 2
    assert update(box, tmp_path, DAYS[1]).runs == {}


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(source, tmp_path):
    write(source, "a.wav", "b.wav")
    where = tmp_path / "archive"
    command = [sys.executable, "-m", "jobs.archive", str(source), "--output", str(where), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["num_listed"], found["num_new"], found["num_changed"]) == (2, 2, 0)
    assert "new: a.wav" in done.stderr
    assert not where.exists()
