"""The suites of random weights, on a CPU with the smallest shapes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from jobs.benchmark import benchmark
from jobs.cli import WrongUse
from pipeline.benchmark import machine, random_model, suites, throughput
from pipeline.benchmark.bench import Bench, generate_rtfx
from pipeline.benchmark.cases import Case, run_cases
from pipeline.benchmark.kernels import CountOperations
from pipeline.benchmark.machine import Peaks
from pipeline.benchmark.roofline import BatchWork, LaunchCounts, predicted_s
from tests.engine.conftest import MINI

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def mini(monkeypatch):
    """The suites know one more model, of two layers, and take less time for the machine's peaks."""
    best_s = machine._best_s
    monkeypatch.setattr(machine, "_best_s", lambda run, device, **_: best_s(run, device, repeats=2))
    monkeypatch.setattr(machine, "COPY_BYTES", 16 << 20)
    monkeypatch.setitem(random_model.KINDS, "mini", MINI)
    monkeypatch.setitem(suites.ABOUT_S, "mini", 0.0)
    monkeypatch.setattr(suites, "CUDA_BATCHES", (2, 1))
    monkeypatch.setattr(suites, "GENERATE_BATCHES", (1,))
    monkeypatch.setattr(suites, "Bench", partial(Bench, num_tokens=3))


def test_every_case_is_on_disk_before_the_next_one_runs(tmp_path):
    path = tmp_path / "found.json"

    def second():
        assert [row["case"] for row in json.loads(path.read_text())["cases"]] == ["first"]
        raise RuntimeError("out of memory")

    cases = [
        Case(name="first", about_s=0.0, run=lambda: {"rate": 2.0}),
        Case(name="second", about_s=0.0, run=second),
        Case(name="too long", about_s=100.0, run=lambda: pytest.fail("there is no time for it")),
        Case(name="last", about_s=0.0, run=lambda: {"rate": 3.0}),
    ]
    found = run_cases(cases, {"device": "x"}, budget_s=50.0, path=path)
    assert [row["case"] for row in found["cases"]] == ["first", "last"]
    assert found["failed"] == {"second": "out of memory"}
    assert found["left_out"] == ["too long"]
    assert json.loads(path.read_text()) == found


def test_operations_that_only_view_are_no_launches():
    numbers = torch.zeros(4, 4)
    with CountOperations() as counted:
        numbers.view(16)[2:].add_(1.0).matmul(numbers.view(16)[2:])
    assert counted.number == 2


def test_a_prediction_is_the_slower_of_arithmetic_and_launches():
    work = BatchWork(linear_flops=8.0, other_flops=2.0, step_flops=1.0, bytes_read=30.0)
    peaks = Peaks(flops=1.0, copied=10.0)
    free = LaunchCounts(encode=1, step=1, encode_launch_s=0.0, step_launch_s=0.0)
    assert predicted_s(work, peaks, free, 4) == 10.0 + 3.0
    dear = LaunchCounts(encode=4, step=5, encode_launch_s=5.0, step_launch_s=1.0)
    assert predicted_s(work, peaks, dear, 4) == 20.0 + 20.0


def test_the_gpu_suite_measures_predicts_and_profiles_every_model(mini, tmp_path):
    path = tmp_path / "gpu.json"
    found = suites.run_gpu_suite(CPU, models=["mini"], budget_s=120.0, path=path)
    assert (found["failed"], found["left_out"]) == ({}, [])
    rows = {row["case"]: row for row in found["cases"]}
    assert list(rows) == [
        *(f"mini b2 {variant}" for variant in ("dense", "stride", "attention")),
        "mini b2 profile",
        "mini b1 generate",
        *(f"mini b1 {variant}" for variant in ("dense", "stride", "attention")),
    ]
    dense = rows["mini b2 dense"]
    assert dense["num_windows"] == 2 * throughput.BATCHES
    assert dense["tokens_per_s"] == pytest.approx(3 * dense["windows_per_s"])
    assert 0 < dense["roofline"] < 1
    assert dense["predicted_windows_per_s"] > dense["windows_per_s"]
    for stage in ("encode", "step"):
        profile = rows["mini b2 profile"][stage]
        assert 0 < len(profile["longest"]) <= profile["num_kernels"]
        assert profile["longest"][0]["seconds"] == max(one["seconds"] for one in profile["longest"])
    assert json.loads(path.read_text())["cases"] == found["cases"]


@pytest.mark.timing
def test_what_does_not_fit_into_the_budget_is_named(mini, monkeypatch):
    monkeypatch.setitem(suites.ABOUT_S, "mini", 60.0)
    started = time.monotonic()
    found = suites.run_mlperf(CPU, models=["mini"], batches=[2], budget_s=1.0, path=None)
    took_s = time.monotonic() - started
    assert found["left_out"] == [f"mini b2 {variant}" for variant in ("dense", "stride", "attention")]
    assert {row["device"] for row in found["published"]} >= {"NVIDIA H200", "2 x Intel Xeon 6980P"}
    assert took_s < 60.0


def test_memory_in_int8_is_a_variant_where_there_is_a_kernel_for_it(mini):
    bench = Bench(device=CPU, dtype="float32", num_tokens=3)
    row, other = (bench.throughput("mini", 2, name) for name in ("stride, int8 memory", "stride"))
    assert row["num_windows"] == 2 * throughput.BATCHES
    assert row["predicted_windows_per_s"] >= other["predicted_windows_per_s"]
    for device, number in (("cpu", 0), ("cuda", 2)):
        bench = SimpleNamespace(device=torch.device(device), throughput=print)
        names = [case.name for case in suites.throughput_cases(bench, "tiny", [1])]
        assert sum("int8 memory" in name for name in names) == number


def test_generate_runs_on_a_model_made_on_the_device():
    assert generate_rtfx(MINI, 1, 3, CPU) > 0


@pytest.mark.slow
def test_the_suite_of_mlperf_runs_from_the_command_line(tmp_path):
    path = tmp_path / "mlperf.json"
    command = [sys.executable, "-m", "jobs.benchmark", "--suite", "mlperf", "--models", "tiny"]
    command += ["--batches", "1", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    totals = json.loads(done.stdout)
    assert [row["variant"] for row in totals["cases"]] == ["dense", "stride", "attention"]
    assert all(row["num_windows"] == throughput.BATCHES for row in totals["cases"])
    assert "67.90 windows/s  NVIDIA H200" in done.stderr
    assert json.loads(path.read_text())["cases"] == totals["cases"]


def test_sizes_that_are_no_numbers_are_wrong_use():
    with pytest.raises(WrongUse, match=r"^--batches: 8,x must be numbers from 1 on"):
        benchmark.main(["--suite", "mlperf", "--batches", "8,x"], standalone_mode=False)


@pytest.mark.slow
def test_the_gpu_suite_needs_no_more_than_torch_transformers_and_click():
    code = """
import sys
for name in ("ray", "pyarrow", "soundfile", "av", "soxr", "jiwer", "silero_vad", "rich"):
    sys.modules[name] = None
import jobs.benchmark, pipeline.benchmark.peers.contenders
from pipeline.benchmark.suites import run_gpu_suite
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
