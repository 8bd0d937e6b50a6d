"""Rounds on a real Ray with a fake model: what kills its process costs its own row and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import ray
import soundfile
from ray import cloudpickle

from pipeline.config import JobRequest, RunOptions
from pipeline.dataflow.cluster import ClusterError
from pipeline.driver import job
from pipeline.driver.job import run_job
from pipeline.output.files import read_transcripts
from tests.fakes import RATE, FakeEngine, result

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KILLS, RAISES, FINE = 12345, 23456, 3456


def answer(samples, language):
    """Die, raise or answer, as the loudness of the recording says."""
    if samples[0] == KILLS:
        os.kill(os.getpid(), signal.SIGKILL)
    if samples[0] == RAISES:
        raise ValueError("the model does not like this one")
    return result(f"{samples[0]}", language=language)


def load_fake(_options, _run, _workers):
    return FakeEngine(answer=answer)


@pytest.fixture
def fake_model(monkeypatch):
    for name in (__name__, "tests.fakes"):
        cloudpickle.register_pickle_by_value(sys.modules[name])
    monkeypatch.setattr(job, "load_engine", load_fake)
    yield
    for name in (__name__, "tests.fakes"):
        cloudpickle.unregister_pickle_by_value(sys.modules[name])


@pytest.fixture(scope="module")
def local_ray():
    from pipeline.dataflow import cluster

    with cluster.connected():
        yield


def make_folder(folder, loudness):
    folder.mkdir()
    for name, value in loudness.items():
        soundfile.write(folder / name, np.full(2 * RATE, value, np.int16), RATE)


def cpus_in_use_at_last(patience_s=120.0):
    """The CPUs that are still taken when those of ended actors have come back."""
    until = time.monotonic() + patience_s
    while (used := ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0.0)) > 0:
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    return used


def request(tmp_path, **options):
    defaults = {"language": "en", "voice_activity": False, "sparsify_layer": 1, "task": "transcribe"}
    return JobRequest(
        inputs=(str(tmp_path / "in"),),
        output=str(tmp_path / "out"),
        model="demo",
        options=defaults | options,
    )


@pytest.mark.usefixtures("fake_model", "local_ray")
def test_a_recording_that_kills_its_process_costs_one_row_in_three_attempts(tmp_path):
    names = {f"{number}.wav": FINE + number for number in range(4)}
    make_folder(tmp_path / "in", names | {"kills.wav": KILLS, "raises.wav": RAISES})
    totals = run_job(request(tmp_path), RunOptions())
    found = {row["recording_id"]: row for row in read_transcripts(str(tmp_path / "out"))}
    assert {name: found[name]["text"] for name in names} == {
        name: str(value) for name, value in names.items()
    }
    assert (found["kills.wav"]["status"], found["kills.wav"]["error_type"]) == ("failed", "crashed")
    assert found["raises.wav"]["error_type"] == "internal_error"
    assert "the model does not like this one" in found["raises.wav"]["error_message"]
    assert totals["errors"] == {"crashed": 1, "internal_error": 1}
    assert (totals["num_ok"], totals["num_failed"]) == (4, 2)
    assert os.listdir(tmp_path / "out" / "_tmp" / "attempts") == []
    assert os.listdir(tmp_path / "out" / "_tmp" / "pieces") == []
    assert cpus_in_use_at_last() == 0, "an actor outlived its round"


def die(_options, _run, _workers):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("fake_model", "local_ray")
def test_a_model_that_kills_its_process_while_it_is_loaded_ends_the_job_in_one_line(tmp_path):
    make_folder(tmp_path / "in", {"a.wav": FINE})
    with pytest.raises(
        ClusterError, match=r"died 3 times while it was loaded, .* memory: [0-9.]+ GB are there$"
    ):
        run_job(request(tmp_path), RunOptions(), load=die)
    assert not list((tmp_path / "out" / "_tmp").glob("attempts/*"))
    assert run_job(request(tmp_path), RunOptions())["num_ok"] == 1


@pytest.mark.usefixtures("fake_model", "local_ray")
def test_failed_rows_run_again_when_asked(tmp_path):
    make_folder(tmp_path / "in", {"a.wav": FINE, "b.wav": FINE})
    content = (tmp_path / "in" / "b.wav").read_bytes()
    stat = (tmp_path / "in" / "b.wav").stat()
    (tmp_path / "in" / "b.wav").rename(tmp_path / "elsewhere.wav")
    (tmp_path / "in" / "b.wav").write_bytes(content[:0] + b"\0" * len(content))
    os.utime(tmp_path / "in" / "b.wav", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    first = run_job(request(tmp_path), RunOptions())
    assert first["num_failed"] == 1
    (tmp_path / "in" / "b.wav").write_bytes(content)
    os.utime(tmp_path / "in" / "b.wav", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run_job(request(tmp_path), RunOptions()) == first
    second = run_job(request(tmp_path), RunOptions(retry_failed=True))
    assert (second["num_ok"], second["num_failed"]) == (2, 0)


@pytest.mark.usefixtures("fake_model", "local_ray")
def test_a_recording_longer_than_a_shard_is_parts_whose_times_are_its_own(tmp_path):
    (tmp_path / "in").mkdir()
    seconds = np.repeat(np.arange(1, 401, dtype=np.int16) * 20, RATE)
    soundfile.write(tmp_path / "in" / "long.wav", seconds, RATE)
    totals = run_job(request(tmp_path, shard_hours=120 / 3600), RunOptions())
    rows = sorted(read_transcripts(str(tmp_path / "out")), key=lambda row: row["part"])
    assert len(rows) > 1
    assert totals["num_recordings"] == 1
    assert sum(row["duration_s"] for row in rows) == pytest.approx(400, abs=0.1)
    starts = [segment["start_s"] for row in rows for segment in row["segments"]]
    assert starts == sorted(starts)
    assert starts[-1] > 300


@pytest.mark.usefixtures("fake_model", "local_ray")
def test_an_estimate_that_proves_wrong_becomes_overflow_and_nothing_is_lost(tmp_path):
    (tmp_path / "in").mkdir()
    # Silence packs so well that the estimate from bytes is far too short.
    soundfile.write(tmp_path / "in" / "dense.flac", np.zeros(600 * RATE, np.int16), RATE)
    totals = run_job(request(tmp_path, shard_hours=60 / 3600), RunOptions())
    rows = list(read_transcripts(str(tmp_path / "out")))
    assert len({row["shard_id"] for row in rows}) > 2
    assert totals["audio_s"] == pytest.approx(600, abs=0.1)
    assert (tmp_path / "out" / "plan" / "plan-00001.parquet").exists()


@pytest.mark.usefixtures("fake_model", "local_ray")
def test_a_file_that_changed_since_it_was_planned_is_a_failed_row(tmp_path, monkeypatch):
    make_folder(tmp_path / "in", {"a.wav": FINE, "b.wav": FINE + 1})

    def stopped(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "_work_off", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_job(request(tmp_path), RunOptions())
    soundfile.write(tmp_path / "in" / "b.wav", np.full(3 * RATE, FINE, np.int16), RATE)
    make_folder(tmp_path / "in" / "late", {"c.wav": FINE})
    run_job(request(tmp_path), RunOptions())
    found = {row["recording_id"]: row for row in read_transcripts(str(tmp_path / "out"))}
    assert found.keys() == {"a.wav", "b.wav"}
    assert found["a.wav"]["status"] == "ok"
    assert (found["b.wav"]["status"], found["b.wav"]["error_type"]) == ("failed", "changed")


def test_secrets_in_urls_are_not_stored():
    found = job.absolute_inputs(["https://user:password@host/a.wav?token=secret", "here"])
    assert found == ["https://host/a.wav", os.path.abspath("here")]


def test_a_call_past_its_deadline_ends_its_process():
    code = (
        "import time\nfrom pipeline.dataflow.stages import _deadline\n"
        "with _deadline('unit', 0.2): time.sleep(20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unit: not done after" in done.stderr
