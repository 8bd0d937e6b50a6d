"""Files of an output appear whole and once."""

import os

import pytest

from pipeline.output.files import existing_store
from pipeline.output.local_store import LocalStore
from pipeline.output.retried import OutputError


def test_a_published_file_is_never_overwritten(tmp_path):
    store = LocalStore.open(str(tmp_path / "out"))
    assert store.publish("a/b", b"first")
    assert not store.publish("a/b", b"second")
    assert store.read("a/b") == b"first"


def test_replace_overwrites_and_leaves_nothing_temporary(tmp_path):
    store = LocalStore.open(str(tmp_path))
    store.replace("x", b"1")
    store.replace("x", b"2")
    assert store.read("x") == b"2"
    assert os.listdir(tmp_path / "_tmp") == []


def test_writing_goes_on_after_the_temporary_folder_was_swept(tmp_path):
    store = LocalStore.open(str(tmp_path))
    os.rmdir(tmp_path / "_tmp")
    assert store.publish("x", b"1")


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    store = LocalStore.open(str(tmp_path))

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.publish("x", b"1")
    assert store.read("x") is None
    assert os.listdir(tmp_path / "_tmp") == []


def test_a_sweep_removes_what_killed_writers_left_and_nothing_else(tmp_path):
    store = LocalStore.open(str(tmp_path))
    store.publish("x", b"1")
    (tmp_path / "_tmp" / "0a.part").write_bytes(b"half")
    (tmp_path / "_tmp" / "lock.json").write_bytes(b"{}")
    store.sweep()
    assert os.listdir(tmp_path / "_tmp") == ["lock.json"]
    assert store.read("x") == b"1"


def test_missing_files_and_folders_read_as_nothing(tmp_path):
    store = LocalStore.open(str(tmp_path))
    assert store.read("nowhere") is None
    assert list(store.names("nowhere")) == []


def test_an_output_that_cannot_be_written_is_one_line_with_its_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/out: cannot write there"):
        LocalStore.open(str(tmp_path / "file" / "out"))


def test_a_folder_without_a_job_is_no_output(tmp_path):
    with pytest.raises(OutputError, match="is not the output of a job"):
        existing_store(str(tmp_path))
