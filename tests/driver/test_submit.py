"""`ray job submit` against a local head that wants a token, as on a cluster."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pipeline.output.files import read_transcripts
from tests.dataflow.test_monitoring import EXPORTED

ROOT = Path(__file__).parents[2]
SPEECH = ROOT / "pipeline" / "demo" / "speech"
RAY = str(Path(sys.executable).with_name("ray"))

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The environment of a user who may submit to a head on loopback with two CPUs."""
    dashboard, port, agent, metrics = (free_port() for _ in range(4))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # an activated environment
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "METRICS_OF_THE_TEST": f"http://127.0.0.1:{metrics}/metrics",
    }
    environment.pop("RAY_ADDRESS", None)
    start = [
        *(RAY, "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--include-dashboard=true"),
        *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
        *("--num-gpus=0", f"--temp-dir={tmp_path_factory.mktemp('ray', numbered=False)}"),
    ]
    process = subprocess.Popen(
        start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not answers(f"http://127.0.0.1:{dashboard}/api/jobs/"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.5)
    yield environment
    os.killpg(process.pid, signal.SIGKILL)  # asked by SIGTERM, it takes half a minute
    process.wait()


def submit(environment, *arguments):
    command = [RAY, "job", "submit", "--working-dir", ".", "--", "python", "-m", "jobs.transcribe"]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip


def exported(url):
    """Our metrics at a node's endpoint, as soon as there are any."""
    deadline = time.monotonic() + 120
    while True:
        with urllib.request.urlopen(url, timeout=60) as answer:
            found = set(re.findall(r"^(ray_earshard_\w+)", answer.read().decode(), re.MULTILINE))
        if found or time.monotonic() > deadline:
            return found
        time.sleep(1)


def test_a_submitted_job_transcribes_and_its_status_is_that_of_the_job(head, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    recording = min(SPEECH.glob("*.wav"), key=lambda path: path.stat().st_size)
    shutil.copy(recording, source)
    arguments = (source, "--model", "demo", "--output", tmp_path / "out", "--gpus-per-actor", 0)
    done = submit(head, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert [row["recording_id"] for row in read_transcripts(str(tmp_path / "out"))] == [recording.name]
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text())["num_ok"] == 1
    seen = exported(head["METRICS_OF_THE_TEST"])
    assert {"ray_earshard_audio_seconds_total", "ray_earshard_recordings_total"} <= seen <= EXPORTED
    refused = submit(head, *arguments, "--sparsity", 0.5)
    assert refused.returncode == 1
    assert "--sparsity was adaptive and is now 0.5" in refused.stdout


def test_the_head_takes_no_job_without_the_token(head, tmp_path):
    stranger = {name: value for name, value in head.items() if name != "RAY_AUTH_TOKEN"}
    done = submit(stranger | {"HOME": str(tmp_path)}, "in", "--output", tmp_path / "out")
    assert done.returncode != 0
    assert "token" in (done.stdout + done.stderr).lower()
    assert not (tmp_path / "out").exists()


@pytest.mark.timing
def test_a_stopped_job_ends_within_thirty_seconds_and_is_resumed(head, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for recording in SPEECH.glob("*.*"):
        if recording.suffix not in {".tsv", ".md"}:
            shutil.copy(recording, source)
    arguments = ["jobs.transcribe", source, "--model", "demo", "--output", output, "--gpus-per-actor", 0]
    arguments += ["--sparsity", 0, "--shard-hours", 0.001]
    command = [RAY, "job", "submit", "--no-wait", "--submission-id", "stopped", "--working-dir", "."]
    command += ["--", "python", "-m", *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, env=head, check=True, capture_output=True, timeout=300)
    deadline = time.monotonic() + 600
    while not list(output.glob("metrics/*.parquet")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    started = time.monotonic()
    subprocess.run([RAY, "job", "stop", "stopped"], env=head, check=True, capture_output=True, timeout=300)
    took_s = time.monotonic() - started
    assert not (output / "_SUCCESS").exists()
    assert not (output / "_tmp" / "lock.json").exists()
    done = submit(head, *arguments[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(read_transcripts(str(output)))) == len(list(source.iterdir()))
    assert took_s < 30
