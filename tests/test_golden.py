"""The output of every release stays readable: one is kept for each under tests/golden."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import JobRequest, RunOptions
from pipeline.driver import model
from pipeline.driver.job import JobMismatch, run_job
from pipeline.output import files
from pipeline.output.files import read_transcripts
from pipeline.output.local_store import LocalStore
from pipeline.schema import METRICS, PLAN, TRANSCRIPTS
from tests.fakes import FakeEngine

RELEASES = sorted(path for path in (Path(__file__).parent / "golden").iterdir() if path.is_dir())


def test_there_is_an_output_of_this_release():
    from pipeline import __version__

    assert __version__ in {path.name for path in RELEASES}


@pytest.mark.parametrize("output", RELEASES, ids=lambda path: path.name)
def test_an_output_of_a_release_is_read_as_it_was_written(output):
    totals = json.loads((output / "_SUCCESS").read_text())
    rows = list(read_transcripts(str(output)))
    assert {row["recording_id"] for row in rows} == {"castillo.ogg", "text.wav", "telephone.wav"}
    statuses = {row["recording_id"]: row["status"] for row in rows}
    assert statuses == {"castillo.ogg": "ok", "text.wav": "failed", "telephone.wav": "ok"}
    assert sum(row["num_hits"] for row in rows if row["num_hits"] is not None) == totals["num_hits"]
    assert all(row["segments"] for row in rows if row["status"] == "ok")


@pytest.mark.parametrize("output", RELEASES, ids=lambda path: path.name)
def test_files_of_a_release_have_the_columns_of_this_one(output):
    store = LocalStore(output)
    for folder, schema in (("transcripts", TRANSCRIPTS), ("metrics", METRICS), ("plan", PLAN)):
        names = list(store.names(folder))
        assert names
        for name in names:
            assert files.parquet_table(store.read(name), schema).num_rows > 0


@pytest.mark.parametrize("output", RELEASES, ids=lambda path: path.name)
def test_a_marker_of_a_release_vouches_for_its_transcripts(output):
    store = LocalStore(output)
    for name in store.names("metrics"):
        marker = files.parquet_table(store.read(name), METRICS).to_pylist()[0]
        content = store.read(files.transcripts_name(marker["shard_id"]))
        assert hashlib.sha256(content).hexdigest() == marker["transcripts_sha256"]


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def unfinished(request, tmp_path, monkeypatch):
    """The output of a release without its second shard, the model of that release, and what was asked for."""
    shutil.copytree(request.param, output := tmp_path / "out")
    for name in ("_SUCCESS", "metrics/shard-000001.parquet", "transcripts/shard-000001.parquet"):
        (output / name).unlink()
    stored = json.loads((output / "_job.json").read_text())["options"]
    found = replace(model.find_model("demo", None), revision=stored["model_revision"])
    monkeypatch.setattr(model, "find_model", lambda *_: found)
    options = {name: stored[name] for name in ("sparsity", "shard_hours")}
    return JobRequest(inputs=("/archive",), output=str(output), model="demo", options=options)


def test_an_unfinished_output_of_a_release_is_resumed_when_asked(unfinished):
    first = Path(unfinished.output, "transcripts", "shard-000000.parquet")
    before = first.read_bytes()
    totals = run_job(replace(unfinished, upgrade=True), RunOptions(local=True), load=lambda *_: FakeEngine())
    rows = {row["recording_id"]: row["error_type"] for row in read_transcripts(unfinished.output)}
    assert rows == {"castillo.ogg": None, "telephone.wav": "missing", "text.wav": "missing"}
    assert (totals["num_ok"], totals["num_failed"]) == (1, 2)
    assert first.read_bytes() == before


def test_an_older_engine_s_output_is_not_mixed_with_this_one_s_unasked(unfinished):
    with pytest.raises(JobMismatch, match=r"the engine's version was 1 and is now .*; .* or --upgrade"):
        run_job(unfinished, RunOptions(local=True), load=lambda *_: FakeEngine())
