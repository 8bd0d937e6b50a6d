"""Imports point down: what the layers promise, checked in fresh interpreters."""

import subprocess
import sys

import pytest

BELOW_RAY = [
    "adaptive.epochs",
    "adaptive.summary",
    "config",
    "dataflow.stages",
    "dataflow.transcription",
    "driver.archive",
    "driver.lock",
    "driver.model_cache",
    "driver.policy",
    "driver.rounds",
    "driver.run_record",
    "metrics.cost",
    "metrics.wer",
    "output.attempts",
    "output.commit",
    "output.state",
    "output.store",
    "planning",
    "reading.shard_reader",
    "reading.voice_activity",
    "reading.windows",
    "results.exports",
    "results.recordings",
    "results.report",
    "results.report_html",
    "results.report_plots",
    "results.report_source",
    "results.subtitles",
    "results.totals",
    "schema",
    "search.driver",
    "search.report",
    "search.try_shard",
    "sources",
]


def modules_after(import_line: str) -> set[str]:
    code = f"import sys\n{import_line}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", BELOW_RAY)
def test_nothing_below_the_graph_imports_ray_or_torch(name):
    loaded = modules_after(f"import pipeline.{name}")
    assert f"pipeline.{name}" in loaded
    assert not loaded & {"ray", "torch", "transformers"}


def test_the_engine_imports_none_of_our_input_and_output():
    loaded = modules_after("import pipeline.engine; pipeline.engine.Engine")
    assert "torch" in loaded
    assert not loaded & {"ray", "pyarrow", "soundfile", "av", "jiwer", "soxr", "fsspec.core", "onnxruntime"}


@pytest.mark.parametrize("job", ["transcribe", "search"])
def test_the_command_line_starts_without_ray_and_torch(job):
    assert not modules_after(f"import jobs.{job}") & {"ray", "torch", "transformers", "pandas"}
