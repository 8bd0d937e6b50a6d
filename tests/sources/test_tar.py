"""Members of tar files."""

from __future__ import annotations

import gzip
import tarfile
import tempfile

from pipeline.planning import make_plan
from pipeline.reading.shard_reader import ShardReader
from pipeline.sources.listing import list_recordings
from tests.reading.made_audio import vowels, wav_bytes
from tests.reading.read_rows import content, options
from tests.sources.inputs import archive, error_of, heard, listed


def test_members_of_a_tar_are_recordings_and_their_neighbours_texts(tmp_path):
    path = archive(tmp_path / "x.tar", [
        ("one.wav", wav_bytes(vowels(0.5))), ("one.txt", b"first text\n"), ("one.cls", b"7"),
        ("d/two.json", b'{"text": "second"}'), ("d/two.wav", wav_bytes(vowels(1))), ("three.wav", b"broken"),
    ])  # fmt: skip
    recordings, skipped = listed(path)
    assert {name: r.reference for name, r in recordings.items()} == {
        "x.tar/one.wav": "first text", "x.tar/d/two.wav": "second", "x.tar/three.wav": None,
    }  # fmt: skip
    assert skipped == ["x.tar/one.cls"]
    assert heard(path) == {"x.tar/d/two.wav": 1.0, "x.tar/one.wav": 0.5, "x.tar/three.wav": "corrupt"}


def test_members_that_lead_out_of_a_tar_are_refused(tmp_path):
    path = archive(tmp_path / "x.tar", [
        ("/abs.wav", wav_bytes(vowels(0.1))), ("../up.wav", wav_bytes(vowels(0.1))),
        ("link.wav", (tarfile.SYMTYPE, "/etc/passwd")), ("hard.wav", (tarfile.LNKTYPE, "good.wav")),
        ("fifo.wav", (tarfile.FIFOTYPE, "")), ("good.wav", wav_bytes(vowels(0.5))),
    ])  # fmt: skip
    found = heard(path)
    assert found.pop("x.tar/good.wav") == 0.5
    assert set(found.values()) == {"refused"}
    assert len(found) == 5


def test_a_tar_that_changed_fails_its_members(tmp_path):
    path = archive(tmp_path / "x.tar", [("a.wav", wav_bytes(vowels(0.5)))])
    plan = make_plan(list_recordings([str(path)]).recordings, shard_hours=1.0)
    archive(path, [("b.wav", wav_bytes(vowels(1))), ("a.wav", wav_bytes(vowels(0.5)))])
    with ShardReader(options()) as reader:
        row, _ = content(reader.read(0, 1, plan.to_pylist()))
    assert row["recordings"][0]["error_type"] == "changed"


def test_a_tar_that_is_cut_short_or_compressed_is_one_line(tmp_path):
    path = archive(tmp_path / "x.tar", [("a.wav", wav_bytes(vowels(0.5))), ("b.wav", wav_bytes(vowels(5)))])
    path.write_bytes(path.read_bytes()[:30_000])
    assert "cut short" in error_of(path)
    (tmp_path / "y.tar.gz").write_bytes(gzip.compress(b"x"))
    assert "compressed" in error_of(tmp_path / "y.tar.gz")


def test_nothing_of_a_tar_is_written_to_disk(tmp_path, monkeypatch):
    path = archive(tmp_path / "x.tar", [("a.wav", wav_bytes(vowels(0.5)))])
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    before = set(tmp_path.rglob("*"))
    assert heard(path) == {"x.tar/a.wav": 0.5}
    assert set(tmp_path.rglob("*")) == before
