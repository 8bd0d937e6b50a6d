"""The same content is transcribed once, and every copy has its row; with a fake model in place of Ray."""

from __future__ import annotations

import os
import shutil
import tarfile
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from pipeline.config import RunOptions
from pipeline.driver import job
from pipeline.output.files import read_transcripts
from pipeline.results.faults import Faults
from pipeline.results.recordings import read_joined, read_plan_rows, read_planned
from tests.driver.test_archive import (  # noqa: F401
    DAYS,
    interrupt,
    request,
    same_content,
    source,
    stop_after,
    stopping,
    update,
    without_ray,
    write,
)


def run(source, tmp_path, *, retry_failed=False, **changes):  # noqa: F811
    asked = replace(request(source), output=str(tmp_path / "out"), **changes)
    return job.run_job(asked, RunOptions(retry_failed=retry_failed, max_failed=1.0))


def rows_of(tmp_path):
    return {row["recording_id"]: row for row in read_transcripts(str(tmp_path / "out"))}


def copy(folder, first, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes((folder / first).read_bytes())


@pytest.fixture
def thirty(source):  # noqa: F811
    """Twenty recordings of one length and ten copies of them, nine in files and one in a tar file."""
    for number in range(20):
        write(source, f"{number:02d}.wav", value=number + 1)
    for number in range(9):
        copy(source, f"{number:02d}.wav", f"copies/{number}.wav")
    with tarfile.open(source / "box.tar", "w") as tar:
        tar.add(source / "19.wav", "inside.wav")
    return source


def test_of_thirty_recordings_with_ten_copies_twenty_are_transcribed(thirty, tmp_path):
    totals = run(thirty, tmp_path, inputs=(str(thirty), str(thirty / "box.tar")))
    assert (totals["num_recordings"], totals["num_copies"], totals["audio_s"]) == (30, 10, 20.0)
    rows = rows_of(tmp_path)
    same = {name: row["same_as"] for name, row in rows.items() if row["same_as"] is not None}
    wanted = {f"copies/{n}.wav": f"{n:02d}.wav" for n in range(9)} | {"box.tar/inside.wav": "19.wav"}
    assert same == wanted
    assert all(rows[name]["text"] == rows[first]["text"] for name, first in wanted.items())
    assert rows["copies/3.wav"]["uri"] == str(thirty / "copies/3.wav")
    planned = read_planned(str(tmp_path / "out"))
    joined = {r.recording_id for r in read_joined(str(tmp_path / "out"), planned, Faults())}
    assert joined == set(rows) == set(planned.num_parts)
    assert read_plan_rows(str(tmp_path / "out"))["box.tar/inside.wav"]["member"] == "inside.wav"


def test_duplicates_are_transcribed_where_that_is_asked_for(thirty, tmp_path):
    totals = run(thirty, tmp_path, duplicates="transcribe")
    assert (totals["num_recordings"], totals["num_copies"], totals["audio_s"]) == (29, 0, 29.0)
    with pytest.raises(job.JobMismatch, match="--duplicates transcribe"):
        run(thirty, tmp_path)


def test_another_copy_makes_another_plan(source, tmp_path):  # noqa: F811
    write(source, "a.wav", value=1)
    copy(source, "a.wav", "b.wav")
    run(source, tmp_path)
    shutil.rmtree(tmp_path / "out")
    copy(source, "a.wav", "c.wav")
    run(source, tmp_path)
    assert set(rows_of(tmp_path)) == {"a.wav", "b.wav", "c.wav"}


def test_files_that_differ_in_their_middle_alone_are_no_copies(source, tmp_path):  # noqa: F811
    write(source, "a.wav", value=1, seconds=10)
    content = bytearray((source / "a.wav").read_bytes())
    content[len(content) // 2] ^= 1
    (source / "b.wav").write_bytes(content)
    copy(source, "b.wav", "c.wav")
    run(source, tmp_path)
    assert {name: row["same_as"] for name, row in rows_of(tmp_path).items()} == {
        "a.wav": None, "b.wav": None, "c.wav": "b.wav",
    }  # fmt: skip


def test_a_copy_has_its_own_reference_and_the_counts_of_an_equal_one(source, tmp_path):  # noqa: F811
    write(source, "a.wav", value=1)
    for name in ("b.wav", "c.wav", "d.wav"):
        copy(source, "a.wav", name)
    lines = {"a.wav": "hello world", "b.wav": "hello world", "c.wav": "something else"}
    references = tmp_path / "refs.tsv"
    references.write_text("path\ttext\n" + "".join(f"{name}\t{text}\n" for name, text in lines.items()))
    totals = run(source, tmp_path, references=str(references))
    rows = rows_of(tmp_path)
    assert {name: row["reference"] for name, row in rows.items()} == lines | {"d.wav": None}
    assert [rows[name]["num_hits"] for name in ("a.wav", "b.wav", "c.wav", "d.wav")] == [2, 2, None, None]
    assert (totals["num_hits"], totals["num_substitutions"]) == (4, 2)


def test_copies_of_a_broken_recording_fail_with_it_and_are_tried_again_with_it(source, tmp_path):  # noqa: F811
    (source / "a.wav").write_bytes(b"RIFF, but nothing else")
    copy(source, "a.wav", "b.wav")
    write(source, "good.wav")
    assert run(source, tmp_path)["num_failed"] == 2
    stamp = os.stat(source / "a.wav").st_mtime_ns
    (source / "a.wav").write_bytes((source / "good.wav").read_bytes())
    again = run(source, tmp_path, retry_failed=True)
    assert again["errors"] == {"changed": 2}
    (source / "a.wav").write_bytes(b"RIFF, but nothing else")
    os.utime(source / "a.wav", ns=(stamp, stamp))
    assert run(source, tmp_path, retry_failed=True)["errors"] == {"unsupported": 2}
    assert set(rows_of(tmp_path)) == {"a.wav", "b.wav", "good.wav"}


def test_a_job_that_is_stopped_and_resumed_has_every_copy_once(thirty, tmp_path, monkeypatch):
    small = request(thirty, shard_hours=1 / 3600)
    asked = replace(small, output=str(tmp_path / "out"))
    with stopping(monkeypatch, job, "_work_off", stop_after(5)):
        job.run_job(asked, RunOptions())
    copy(thirty, "00.wav", "late.wav")
    totals = job.run_job(asked, RunOptions())
    names = [row["recording_id"] for row in read_transcripts(str(tmp_path / "out"))]
    assert len(names) == len(set(names)) == totals["num_recordings"] == 29


def test_an_archive_transcribes_copies_once_and_none_after_they_were_renamed(thirty, tmp_path, monkeypatch):
    done = update(thirty, tmp_path)
    assert (done.runs[DAYS[0]]["num_recordings"], done.runs[DAYS[0]]["num_copies"]) == (29, 9)
    ledger = pq.read_table(tmp_path / "archive" / "ledger").to_pylist()
    assert len(ledger) == 29
    assert all(row["content"] for row in ledger)
    monkeypatch.setattr(job, "_work_off", interrupt)
    assert update(thirty, tmp_path, DAYS[1]).survey.same == ()
    for path in sorted(thirty.rglob("*.wav")):
        path.rename(path.with_stem(f"new-{path.stem}"))
    again = update(thirty, tmp_path, DAYS[1])
    assert (again.runs, len(again.survey.same)) == ({}, 29)
    assert same_content(again)["new-15.wav"] == "15.wav"
