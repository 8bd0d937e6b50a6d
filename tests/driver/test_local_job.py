"""A small job is one process without Ray: the same rows, files, resume and report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from pipeline.config import JobRequest, OptionError, RunOptions
from pipeline.dataflow import cluster
from pipeline.dataflow.workers import local_workers
from pipeline.driver.job import run_job
from pipeline.driver.progress import JobProgress
from pipeline.driver.rounds import is_local
from pipeline.output.files import read_transcripts
from pipeline.output.state import WorkUnit
from pipeline.schema import PLAN, table_of
from tests.fakes import RATE, FakeEngine, plan_row, result

# Transcribes the loudness of a recording, and dies of one that is too loud.
PROGRAM = """
import os, signal, sys
from pipeline.config import JobRequest, RunOptions
from pipeline.driver.job import run_job
from tests.fakes import FakeEngine, result

def answer(samples, language):
    if samples[0] == 12345:
        os.kill(os.getpid(), signal.SIGKILL)
    return result(str(samples[0]), language=language)

options = {"language": "en", "voice_activity": False}
request = JobRequest(inputs=(sys.argv[1],), output=sys.argv[2], model="demo", options=options)
totals = run_job(request, RunOptions(), load=lambda *_: FakeEngine(answer=answer))
assert "ray" not in sys.modules and "torch" not in sys.modules
print(totals["num_ok"], totals["num_failed"])
"""


def make_folder(folder, **loudness):
    folder.mkdir()
    for name, value in loudness.items():
        soundfile.write(folder / f"{name}.wav", np.full(2 * RATE, value, np.int16), RATE)
    return folder


def run_program(folder, output):
    command = [sys.executable, "-c", PROGRAM, folder, str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def texts(output):
    return {row["recording_id"]: row["text"] for row in read_transcripts(str(output))}


def run_here(folder, output, **options):
    def answer(samples, language):
        return result(str(samples[0]), language=language)

    options = {"language": "en", "voice_activity": False, **options}
    request = JobRequest(inputs=(str(folder),), output=str(output), model="demo", options=options)
    return run_job(request, RunOptions(local=True), load=lambda *_: FakeEngine(answer=answer))


def test_a_small_job_needs_no_ray_and_leaves_what_a_job_leaves(tmp_path):
    folder = make_folder(tmp_path / "in", a=5001, b=5002)
    done = run_program(folder, tmp_path / "out")
    assert (done.stdout, done.returncode) == ("2 0\n", 0), done.stderr
    assert texts(tmp_path / "out") == {"a.wav": "5001", "b.wav": "5002"}
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text())["num_ok"] == 2
    assert (tmp_path / "out" / "report.html").exists()
    assert not list((tmp_path / "out" / "_tmp").rglob("shard*"))


def test_a_job_that_is_stopped_resumes_and_ends_as_if_undisturbed(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "in", a=5001, b=5002, c=5003, d=5004)
    small = {"shard_hours": 2 / 3600}
    run_here(folder, tmp_path / "undisturbed", **small)

    def stop(self, _marker):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(JobProgress, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            run_here(folder, tmp_path / "out", **small)
    metrics = tmp_path / "out" / "metrics"
    committed = {path.name: path.stat().st_mtime_ns for path in metrics.iterdir()}
    assert len(committed) == 1
    run_here(folder, tmp_path / "out", **small)
    assert {path.name: path.stat().st_mtime_ns for path in metrics.iterdir()}.items() >= committed.items()
    assert texts(tmp_path / "out") == texts(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_folder_and_a_file_whose_names_are_not_utf_8_are_inputs_like_others(tmp_path):
    folder = make_folder(tmp_path / "in", plain=5001)
    shutil.copy(folder / "plain.wav", os.fsencode(folder) + b"/\xe9t\xe9.wav")
    named = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    folder.rename(named)
    done = run_program(named, tmp_path / "out")
    assert done.stdout == "2 0\n", done.stderr
    assert list(texts(tmp_path / "out").values()) == ["5001", "5001"]
    assert run_program(named, tmp_path / "out").stdout == "2 0\n"
    uris = [row["uri"] for row in read_transcripts(str(tmp_path / "out"))]
    assert uris[-1].endswith("/caf%E9/plain.wav")
    one = run_program(os.fsencode(named) + b"/\xe9t\xe9.wav", tmp_path / "one")
    assert one.stdout == "1 0\n", one.stderr


@pytest.mark.slow
def test_a_recording_that_kills_the_process_costs_one_row_when_the_command_is_repeated(tmp_path):
    folder = make_folder(tmp_path / "in", a=5001, kills=12345, z=5003)
    for _ in range(8):
        done = run_program(folder, tmp_path / "out")
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
    assert done.stdout == "2 1\n", done.stderr
    found = {row["recording_id"]: row for row in read_transcripts(str(tmp_path / "out"))}
    assert found["kills.wav"]["error_type"] == "crashed"
    assert (found["a.wav"]["text"], found["z.wav"]["text"]) == ("5001", "5003")


def units(*seconds):
    rows = [plan_row(f"{n}.wav", n, duration_s=float(one)) for n, one in enumerate(seconds)]
    return [WorkUnit(shard_id=n, attempt=1, rows=table_of(PLAN, [row])) for n, row in enumerate(rows)]


def test_a_job_is_one_process_up_to_an_hour_of_audio(monkeypatch):
    monkeypatch.setattr(cluster, "is_connected", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert is_local(RunOptions(), units(1800, 1800))
    assert not is_local(RunOptions(), units(1800, 1801))
    assert not is_local(RunOptions(max_actors=2), units(10))
    assert is_local(RunOptions(local=True), units(7200))
    assert not is_local(RunOptions(local=False), units(10))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not is_local(RunOptions(), units(10))


def test_a_job_stays_on_the_ray_that_its_process_is_connected_to(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "is_connected", lambda: True)
    assert not is_local(RunOptions(), units(10))


def test_the_model_has_a_thread_for_every_cpu_and_actors_need_a_ray(monkeypatch):
    from pipeline.dataflow import machine, workers

    monkeypatch.setattr(workers, "allowed_cpus", lambda: machine.Cpus(num=16, reason="all"))
    assert local_workers(RunOptions(gpus_per_actor=0)).threads_per_actor == 16
    with pytest.raises(OptionError, match=r"--actors 3: must be 1 with --local"):
        local_workers(RunOptions(max_actors=3))
    monkeypatch.setattr(workers, "_sees_gpus", lambda: False)
    with pytest.raises(OptionError, match=r"--gpus-per-actor 1: this machine has no NVIDIA GPU; must be 0"):
        local_workers(RunOptions(gpus_per_actor=1.0))
