"""The output of every release stays readable: one is kept for each under tests/golden."""

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.output import files
from pipeline.output.files import read_transcripts
from pipeline.output.local_store import LocalStore
from pipeline.schema import METRICS, PLAN, TRANSCRIPTS

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
