"""Manifests: a path in every line, and every bad line by its number."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.planning import make_plan
from pipeline.sources.listing import list_recordings
from tests.reading.made_audio import RATE, vowels, write
from tests.reading.read_rows import content, open_reader
from tests.sources.inputs import error_of, heard, listed, manifest


def test_a_manifest_in_json_lines(tmp_path):
    write(tmp_path / "wav" / "a.wav", vowels(0.5))
    path = manifest(tmp_path, "m.jsonl", [
        {"audio_filepath": "wav/a.wav", "text": "one", "duration": 0.5},
        {"audio": str(tmp_path / "wav" / "a.wav"), "id": "second", "text": ""},
        {"path": "wav/gone.wav", "id": 3},
    ])  # fmt: skip
    recordings, _ = listed(path)
    assert set(recordings) == {"wav/a.wav", "second", "3"}
    assert (recordings["wav/a.wav"].reference, recordings["wav/a.wav"].duration_s) == ("one", 0.5)
    assert recordings["second"].reference == ""
    assert recordings["3"].reference is None
    assert heard(path) == {"wav/a.wav": 0.5, "second": 0.5, "3": "missing"}


def test_a_manifest_of_nemo_cuts_by_offset(tmp_path):
    voice = vowels(6)
    write(tmp_path / "a.wav", voice)
    path = manifest(tmp_path, "m.jsonl", [
        {"audio_filepath": "a.wav", "offset": 1.0, "duration": 2.0, "text": "x"},
        {"audio_filepath": "a.wav", "offset": 3.0, "duration": 1.25, "text": "y"},
    ])  # fmt: skip
    assert heard(path) == {"a.wav#t=1.0000,3.0000": 2.0, "a.wav#t=3.0000,4.2500": 1.25}
    plan = make_plan(list_recordings([str(path)]).recordings, shard_hours=1.0)
    with open_reader() as reader:
        _, samples = content(reader.read(0, 1, plan.to_pylist()))
    assert np.abs(samples[0] - np.round(voice[RATE : 3 * RATE] * 32767)).max() <= 1


@pytest.mark.parametrize(("name", "mark"), [("m.csv", ","), ("m.tsv", "\t")])
def test_a_manifest_as_a_table(tmp_path, name, mark):
    write(tmp_path / "a.wav", vowels(0.5))
    rows = [["path", "text", "speaker"], ["a.wav", "a text", "7"]]
    path = manifest(tmp_path, name, [mark.join(row) for row in rows])
    recordings, _ = listed(path)
    assert recordings["a.wav"].reference == "a text"


def test_quotes_are_quotes_in_csv_and_characters_in_tsv(tmp_path):
    assert (
        listed(manifest(tmp_path, "m.csv", ["path,text", 'a.wav,"one, two"']))[0]["a.wav"].reference
        == "one, two"
    )
    assert (
        listed(manifest(tmp_path, "m.tsv", ["path\ttext", 'a.wav\tsay "hi']))[0]["a.wav"].reference
        == 'say "hi'
    )


def test_a_manifest_in_parquet(tmp_path):
    write(tmp_path / "a.wav", vowels(0.5))
    pq.write_table(pa.table({"uri": ["a.wav"], "text": ["x"], "other": [1]}), tmp_path / "m.parquet")
    assert listed(tmp_path / "m.parquet")[0]["a.wav"].reference == "x"


def test_a_compressed_manifest_and_one_of_no_lines(tmp_path):
    with gzip.open(tmp_path / "m.jsonl.gz", "wt") as file:
        file.write('{"path": "a.wav"}\n')
    assert set(listed(tmp_path / "m.jsonl.gz")[0]) == {"a.wav"}
    assert listed(manifest(tmp_path, "m.jsonl", []))[0] == {}


def test_every_bad_line_is_named_by_its_number(tmp_path):
    path = manifest(tmp_path, "m.jsonl", [
        {"path": "a.wav"}, "{oops", {"text": "no path"}, {"path": 5}, [],
        {"path": "b.wav", "duration": "long"},
        {"path": "c.wav", "duration": -1}, "[" * 100_000,
    ])  # fmt: skip
    message = error_of(path)
    assert "7 bad lines" in message
    for number in (2, 3, 4, 5, 6, 7, 8):
        assert f"line {number}: " in message
    assert "line 1: " not in message


def test_a_line_of_too_few_columns_is_a_bad_line(tmp_path):
    assert "line 3: " in error_of(manifest(tmp_path, "m.csv", ["path,text", "a.wav,x", "b.wav"]))


@pytest.mark.parametrize(
    "location",
    ["/proc/self/environ", "file:///etc/passwd", "file://host/a.wav", "../../../../../../etc/passwd"],
)
def test_a_manifest_cannot_name_the_system(tmp_path, location):
    assert "refused" in error_of(manifest(tmp_path, "m.jsonl", [{"path": location}]))


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("https://user:SECRET@example.invalid/a.wav?token=SECRET#SECRET", "https://example.invalid/a.wav"),
        ("s3://SECRET:SECRET@bucket/a.wav", "s3://bucket/a.wav"),
        ("s3://bucket/a.wav?versionId=SECRET", "s3://bucket/a.wav"),
    ],
)
def test_secrets_of_a_url_are_stored_nowhere(tmp_path, url, stored):
    (recording,) = listed(manifest(tmp_path, "m.jsonl", [{"path": url}]))[0].values()
    assert recording.uri == stored
    assert "SECRET" not in repr(recording)
    assert "SECRET" not in error_of(manifest(tmp_path, "n.jsonl", [{"path": url.replace("://", "x://")}]))
