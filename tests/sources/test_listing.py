"""Inputs of every kind become recordings with stable ids; what is wrong is one line that says where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.planning import make_plan
from pipeline.sources.listing import list_recordings
from tests.reading.made_audio import vowels, wav_bytes, write
from tests.reading.read_rows import content, open_reader
from tests.sources.inputs import error_of, heard, listed


@pytest.fixture
def folder(tmp_path):
    """A folder of recordings and other files, two levels deep."""
    write(tmp_path / "in" / "a.wav", vowels(0.5))
    write(tmp_path / "in" / "sub" / "b.flac", vowels(1))
    write(tmp_path / "in" / "sub" / "c.wav", vowels(1.5)).rename(tmp_path / "in" / "sub" / "C.WAV")
    (tmp_path / "in" / "notes.txt").write_text("not audio")
    (tmp_path / "in" / "sub" / "noextension").write_bytes(wav_bytes(vowels(2)))
    return tmp_path / "in"


def test_a_folder_is_every_media_file_below_it(folder):
    recordings, skipped = listed(folder)
    assert set(recordings) == {"a.wav", "sub/b.flac", "sub/C.WAV"}
    assert sorted(skipped) == ["notes.txt", "sub/noextension"]
    assert recordings["a.wav"].uri == str(folder / "a.wav")
    assert recordings["a.wav"].bytes == (folder / "a.wav").stat().st_size


def test_all_files_takes_the_others_too(folder):
    recordings, skipped = listed(folder, all_files=True)
    assert set(recordings) == {"a.wav", "sub/b.flac", "sub/C.WAV", "notes.txt", "sub/noextension"}
    assert skipped == []
    assert heard(folder, all_files=True)["sub/noextension"] == 2.0


def test_a_file_named_alone_is_taken_whatever_its_name(folder):
    assert heard(folder / "sub" / "noextension") == {"noextension": 2.0}


def test_a_pattern_is_the_files_that_match(folder):
    assert set(listed(folder / "**" / "*.flac")[0]) == {"sub/b.flac"}
    recordings, skipped = listed(folder / "*")
    assert (set(recordings), skipped) == ({"a.wav"}, ["notes.txt"])


def test_a_name_with_a_wildcard_in_it_is_a_name(tmp_path):
    write(tmp_path / "a[1].wav", vowels(0.5))
    assert set(listed(tmp_path / "a[1].wav")[0]) == {"a[1].wav"}


def test_ids_are_relative_whatever_the_folder_is_called_by(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert (
        listed("in")[0] == listed(folder)[0] == listed(f"{folder}/../in/")[0] == listed(f"file://{folder}")[0]
    )


def test_two_inputs_of_the_same_names_keep_apart_only_those(tmp_path):
    for name in ("x/a.wav", "y/a.wav", "y/b.wav"):
        write(tmp_path / name, vowels(0.1))
    assert set(listed(tmp_path / "x", tmp_path / "y")[0]) == {"a.wav", "2/a.wav", "b.wav"}


def test_names_that_are_no_unicode_are_read(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    with open(path, "wb") as file:
        file.write(wav_bytes(vowels(0.5)))
    assert heard(tmp_path) == {"caf\\xe9.wav": 0.5}


def test_control_characters_in_a_name_reach_no_message(tmp_path):
    (tmp_path / "a\x1b[31m\n.wav").write_bytes(b"")
    plan = make_plan(list_recordings([str(tmp_path)]).recordings, shard_hours=1.0)
    with open_reader() as reader:
        row, _ = content(reader.read(0, 1, plan.to_pylist()))
    assert row["recordings"][0]["recording_id"] == "a\x1b[31m\n.wav"
    assert row["recordings"][0]["error_message"].isprintable()


def test_what_cannot_be_an_input_is_one_line(tmp_path):
    assert "no such file" in error_of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no recordings" in error_of(tmp_path / "empty")
    assert "no recordings" in error_of(tmp_path / "*.wav")
    assert "scheme" in error_of("ftp://host/a.wav")
    assert "scheme" in error_of("zip://a.wav::http://host/b.zip")
    assert "system" in error_of("/proc")
    assert "system" in error_of("/etc/hostname")


def test_a_link_into_the_system_is_refused(tmp_path):
    (tmp_path / "a.wav").symlink_to("/etc/passwd")
    (tmp_path / "b").symlink_to("/etc")
    assert heard(tmp_path) == {"a.wav": "refused", "b/": "refused"}


def test_listing_imports_neither_ray_nor_a_decoder(tmp_path):
    import subprocess
    import sys

    write(tmp_path / "a.wav", vowels(0.1))
    code = (
        "import sys\nfrom pipeline.planning import make_plan\n"
        "from pipeline.sources.listing import list_recordings\n"
        f"make_plan(list_recordings([{str(tmp_path)!r}]).recordings, shard_hours=1.0)\n"
        "assert not {'ray', 'torch', 'av', 'soundfile', 'onnxruntime', 'fsspec.core'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
