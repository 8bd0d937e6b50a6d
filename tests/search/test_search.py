"""The search: what it tries and makes of it, what it leaves behind, and that it goes on when killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.adaptive.policy_file import read_policy

ROOT = Path(__file__).parents[2]


def command(*arguments):
    return [sys.executable, "-m", "jobs.search", *map(str, arguments)]


def search(*arguments, status=0):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "paper", "--layers", "1"], "--layers: must not be given with --preset"),
        (["--layers", "1"], "--layers: must come with --sparsities"),
        (["--layers", "a", "--sparsities", "0.5"], "--layers a: must be whole numbers"),
        (["--selectors", "best", "--sparsities", "0.5"], "--selectors best: must be attention"),
        (["--layers", "9", "--sparsities", "0.5"], "has no layer that it tries"),
    ],
)
def test_wrong_use_is_one_line(tmp_path, arguments, message):
    (tmp_path / "r.tsv").write_text("audio_filepath\ttext\na.wav\tx\n")
    shared = (tmp_path, "--references", tmp_path / "r.tsv", "--output", tmp_path / "out", "--model", "demo")
    done = search(*shared, *arguments, status=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_ends_with_a_policy_that_the_job_takes(tmp_path):
    speech = ROOT / "pipeline" / "demo" / "speech"
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("kitchen.wav", "telephone.wav"):
        (folder / name).write_bytes((speech / name).read_bytes())
    arguments = (
        *(folder, "--references", speech / "references.tsv", "--model", "demo", "--output", out),
        *("--sparsities", "0.3", "--layers", "1,9", "--shard-hours", "0.0001", "--wer-budget", "9"),
        *("--gpus-per-actor", "0"),
    )
    started = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    first = out / "trials" / "shard-000000.parquet"
    deadline = time.monotonic() + 600
    while not first.exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()
    assert first.exists()
    before = first.stat().st_mtime_ns
    done = search(*arguments)
    assert "Traceback" not in done.stderr
    assert first.stat().st_mtime_ns == before
    totals = json.loads(done.stdout.splitlines()[-1])
    assert (totals["num_windows"], totals["num_failed"]) == (2, 0)
    assert totals["left_out"] == ["i9 s0.30 attention"]
    assert "i1 s0.30 attention" in done.stderr
    policy = read_policy(totals["policy"])
    assert policy.model == "demo"
    again = search(*arguments, "--wer-budget", "0")
    assert json.loads(again.stdout.splitlines()[-1])["best"] is None  # judged anew, without Ray
    other = search(*arguments, "--language", "en", status=2)
    assert "is the output of another search, --language was auto and is now en" in other.stderr
