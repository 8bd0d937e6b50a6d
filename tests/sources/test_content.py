"""A recording is known by its bytes, by a bucket's checksum where they are not here, or not at all."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources.content import content_of, contents_beside
from pipeline.sources.listing import list_recordings
from pipeline.sources.recording import Recording
from tests.sources.inputs import archive

ETAG = "5d41402abc4b2a76b9719d911017c592"


def contents(*inputs):
    found = list_recordings([str(i) for i in inputs]).recordings
    return {recording.recording_id: content_of(recording) for recording in found}


def test_a_file_and_its_copy_in_a_tar_have_one_content(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"one")
    (tmp_path / "b.wav").write_bytes(b"two")
    archive(tmp_path / "x.tar", [("c.wav", b"two"), ("d.wav", b"one")])
    found = contents(tmp_path, tmp_path / "x.tar")
    assert found["a.wav"] == found["x.tar/d.wav"] != found["b.wav"] == found["x.tar/c.wav"]


def test_what_is_not_what_was_listed_has_no_content(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"one")
    (recording,) = list_recordings([str(tmp_path)]).recordings
    os.utime(tmp_path / "a.wav", (1, 1))
    assert content_of(recording) is None
    (tmp_path / "a.wav").unlink()
    assert content_of(recording) is None


def test_rows_of_parquet_and_empty_files_have_none(tmp_path):
    pq.write_table(pa.table({"audio": [b"one"]}), tmp_path / "x.parquet")
    (tmp_path / "empty.wav").write_bytes(b"")
    assert set(contents(tmp_path, tmp_path / "x.parquet").values()) == {None}


@pytest.mark.parametrize(
    ("uri", "identity", "is_known"),
    [
        ("s3://b/a.wav", f"5-{ETAG}", True),
        ("s3://b/a.wav", f"5-{ETAG}-3", True),
        ("s3://b/a.wav", "5-2026-11-27 13:00:00", False),
        ("gs://b/a.wav", f"5-{ETAG}", False),
        ("https://h/a.wav", f"5-{ETAG}", False),
    ],
)
def test_of_a_bucket_its_own_checksum_is_the_content(uri, identity, is_known):
    recording = Recording(recording_id="x", uri=uri, bytes=5, identity=identity)
    assert (content_of(recording) is not None) == is_known


def test_contents_are_found_beside_other_work_and_left_when_it_ends_early(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"one")
    recordings = tuple(list_recordings([str(tmp_path)]).recordings)
    with contents_beside(recordings) as found:
        assert found.result() == {"a.wav": content_of(recordings[0])}
    with pytest.raises(KeyboardInterrupt), contents_beside(recordings):
        raise KeyboardInterrupt
