"""What a folder holds is taken, passed over or failed, and always told; ids are unique and stay the same."""

from __future__ import annotations

import io
import os
import tarfile
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources import folders
from pipeline.sources.listing import list_recordings
from pipeline.sources.recording import MEDIA_RATES
from pipeline.sources.references import read_references
from pipeline.sources.selection import LEFT_BEHIND
from tests.reading.made_audio import vowels, wav_bytes, write
from tests.sources.inputs import archive, error_of, heard, listed, manifest


def listing(*inputs, **how):
    found = list_recordings([str(i) for i in inputs], **how)
    return sorted(recording.recording_id for recording in found.recordings), found


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize("all_files", [False, True])
def test_what_systems_leave_behind_is_passed_over_and_counted(tmp_path, all_files):
    names = [pattern.replace("*", "x") for pattern in LEFT_BEHIND]
    touch(tmp_path, "good.wav", "sub/inner.wav", "._good.wav", "sub/@EADIR/a.wav")
    touch(tmp_path, *(f"{name}/a.wav" for name in names))
    ids, found = listing(tmp_path, all_files=all_files)
    assert ids == ["good.wav", "sub/inner.wav"]
    assert set(found.passed_over) == {*(f"{name}/" for name in names), "._good.wav", "sub/@EADIR/"}
    assert found.skipped == []


def test_it_is_passed_over_in_patterns_and_tars_too(tmp_path):
    touch(tmp_path, "in/a.wav", "in/._a.wav", "in/__MACOSX/b.wav")
    assert listing(tmp_path / "in/**/*")[0] == ["a.wav"]
    path = archive(tmp_path / "x.tar", [("a.wav", b"x"), ("._a.wav", b"x"), ("__MACOSX/a.wav", b"x")])
    ids, found = listing(path, all_files=True)
    assert (ids, found.passed_over) == (["x.tar/a.wav"], ["x.tar/._a.wav", "x.tar/__MACOSX/a.wav"])


def test_below_such_a_folder_is_taken_what_is_asked_for_by_its_name(tmp_path):
    touch(tmp_path, "#recycle/a.wav")
    assert listing(tmp_path / "#recycle")[0] == ["a.wav"]


def test_a_linked_folder_is_followed_and_every_folder_listed_once(tmp_path, caplog):
    touch(tmp_path, "in/good.wav", "in/real/r.wav", "elsewhere/far.wav", "elsewhere/deep/x.wav")
    (tmp_path / "in/linked").symlink_to("../elsewhere")
    (tmp_path / "in/a_link").symlink_to("real")
    (tmp_path / "elsewhere/back").symlink_to("../in")
    (tmp_path / "in/real/loop").symlink_to("..")
    (tmp_path / "in/itself").symlink_to("itself")
    ids, _ = listing(tmp_path / "in")
    assert ids == ["good.wav", "linked/deep/x.wav", "linked/far.wav", "real/r.wav"]
    assert sum("loop or a second way" in line for line in caplog.messages) == 3


def test_a_folder_that_cannot_be_read_is_one_recording_that_fails(tmp_path, monkeypatch):
    write(tmp_path / "good.wav", vowels(0.5))
    touch(tmp_path, "closed/a.wav")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(folders.os, "scandir", scandir)
    assert heard(tmp_path) == {"good.wav": 0.5, "closed/": "unreadable"}
    with pytest.raises(Exception, match="cannot be read"):
        listing(tmp_path / "closed")


def test_the_output_of_the_job_is_never_input(tmp_path):
    touch(tmp_path, "in/a.wav", "in/out/export/b.wav", "in/out2/c.wav")
    (tmp_path / "link").symlink_to("in/out")
    for output in (tmp_path / "in/out", f"file://{tmp_path}/in/out/", tmp_path / "link"):
        ids, found = listing(tmp_path / "in", all_files=True, output=str(output))
        assert (ids, found.passed_over) == (["a.wav", "out2/c.wav"], ["out/"])
        assert listing(tmp_path / "in/**/*", all_files=True, output=str(output))[0] == ["a.wav", "out2/c.wav"]
    assert listing(tmp_path / "in/out/export", output=str(tmp_path / "in/out"))[0] == ["b.wav"]


def test_containers_are_taken_by_their_names_in_any_case(tmp_path):
    touch(tmp_path, *(f"{number}.{ending}" for number, ending in enumerate(MEDIA_RATES)))
    touch(tmp_path, "00001.MTS", "VTS_01_1.VOB", "phone.3GA", "notes.docx")
    ids, found = listing(tmp_path)
    assert len(ids) == len(MEDIA_RATES) + 3
    assert found.skipped == ["notes.docx"]


def test_members_of_a_tar_are_called_without_dots(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("./a.wav", "./sub/./b.wav", "./sub//c.wav"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    assert listing(tmp_path / "x.tar")[0] == ["x.tar/a.wav", "x.tar/sub/b.wav", "x.tar/sub/c.wav"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_of_a_folder_says_the_texts_of_its_recordings(tmp_path, kind):
    for name in ("one.wav", "sub/two.wav", "three.wav"):
        write(tmp_path / name, vowels(0.5))
    (tmp_path / "strange.bin").write_bytes(wav_bytes(vowels(0.5)))
    lines = [
        {"file_name": "one.wav", "transcription": "one", "lang": "de"},
        {"file_name": "sub/two.wav", "transcription": "two", "lang": ""},
        {"file_name": "strange.bin", "transcription": "strange", "lang": ""},
        {"file_name": "gone.wav", "transcription": "gone", "lang": ""},
    ]
    path = tmp_path / f"metadata.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(lines), path)
    elif kind == "jsonl":
        manifest(tmp_path, path.name, lines)
    else:
        manifest(tmp_path, path.name, [",".join(lines[0]), *(",".join(line.values()) for line in lines)])
    found, skipped = listed(tmp_path)
    assert {name: recording.reference for name, recording in found.items()} == {
        "one.wav": "one", "sub/two.wav": "two", "three.wav": None,
        "strange.bin": "strange", "gone.wav": "gone",
    }  # fmt: skip
    assert (found["one.wav"].language, skipped) == ("de", [])
    assert heard(tmp_path)["gone.wav"] == "missing"


def test_a_table_of_that_name_which_names_no_files_is_a_file_like_others(tmp_path):
    write(tmp_path / "a.wav", vowels(0.5))
    (tmp_path / "metadata.csv").write_bytes("LJ001|Größe|size\n".encode("latin-1"))
    found, skipped = listed(tmp_path)
    assert (set(found), skipped) == ({"a.wav"}, ["metadata.csv"])
    (tmp_path / "metadata.csv").write_text("file_name,text,lang\na.wav,x,nonsense!\n")
    assert "line 2: lang is" in error_of(tmp_path)


def test_a_pattern_over_such_a_folder_takes_every_recording_once(tmp_path):
    write(tmp_path / "one.wav", vowels(0.5))
    manifest(tmp_path, "metadata.csv", ["file_name,transcription", "one.wav,one"])
    found, _ = listed(tmp_path / "*")
    assert {name: recording.reference for name, recording in found.items()} == {"one.wav": "one"}


@pytest.mark.parametrize(("on_disk", "in_file"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_references_match_names_in_either_form_of_unicode(tmp_path, on_disk, in_file):
    name = "café über.wav"
    write(tmp_path / "in" / unicodedata.normalize(on_disk, name), vowels(0.1))
    line = {"path": unicodedata.normalize(in_file, name), "text": "said so"}
    references = read_references(str(manifest(tmp_path, "r.jsonl", [line])))
    (recording,) = listed(tmp_path / "in", references=references)[0].values()
    assert recording.reference == "said so"


def test_of_two_files_that_differ_in_their_form_each_has_its_own_reference(tmp_path):
    names = [unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD")]
    touch(tmp_path / "in", *names)
    path = manifest(tmp_path, "r.jsonl", [{"path": name, "text": ascii(name)} for name in names])
    found, _ = listed(tmp_path / "in", references=read_references(str(path)))
    assert {name: r.reference for name, r in found.items()} == {name: ascii(name) for name in names}


def twice(*inputs):
    """The ids of inputs, which are unique and the same when they are listed again."""
    ids = listing(*inputs)[0]
    assert len(set(ids)) == len(ids)
    assert listing(*inputs)[0] == ids
    return ids


def test_ids_that_repeat_become_unique_and_stay_the_same(tmp_path):
    lines = [{"id": 7, "path": "a.wav"}, {"id": 7, "path": "b.wav"}, {"id": 9, "path": "c.wav"}]
    ids = twice(manifest(tmp_path, "m.jsonl", lines))
    assert {"7", "9"} < set(ids)
    (made,) = set(ids) - {"7", "9"}
    assert made.startswith("7~")
    later = [*lines, {"id": 7, "path": "d.wav"}, {"id": made, "path": "e.wav"}]
    assert set(ids) < set(twice(manifest(tmp_path, "m.jsonl", later)))
    before = [{"id": made, "path": "e.wav"}, *lines]
    assert made in twice(manifest(tmp_path, "n.jsonl", before))


def test_rows_of_one_id_and_rows_without_ids_are_apart(tmp_path):
    audio = {"bytes": wav_bytes(vowels(0.1)), "path": "x.wav"}
    rows = [{"id": i, "audio": audio} for i in (None, "x.parquet/row-0000000", "7", "7")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert len(twice(tmp_path / "x.parquet")) == 4


def test_containers_of_one_name_in_two_folders_are_called_by_their_places(tmp_path):
    audio = {"bytes": wav_bytes(vowels(0.1)), "path": "x.wav"}
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist([{"audio": audio}] * 2), tmp_path / name / "0000.parquet")
        archive(tmp_path / name / "x.tar", [("a.wav", b"x")])
    assert twice(tmp_path / "*/0000.parquet")[0] == "test/0000.parquet/row-0000000"
    assert twice(tmp_path / "*/x.tar") == ["test/x.tar/a.wav", "train/x.tar/a.wav"]
    assert len(twice(tmp_path / "train/0000.parquet", tmp_path / "test/0000.parquet")) == 4


def test_an_id_made_for_a_second_input_meets_no_real_one(tmp_path):
    touch(tmp_path, "x/a.wav", "x/2/a.wav", "y/a.wav")
    ids = twice(tmp_path / "x", tmp_path / "y")
    assert {"a.wav", "2/a.wav"} < set(ids)
    assert len(ids) == 3


def test_a_recording_that_is_listed_again_is_taken_once(tmp_path):
    write(tmp_path / "in/a.wav", vowels(0.1))
    assert listing(tmp_path / "in", tmp_path / "in/a.wav", tmp_path / "in/*.wav")[0] == ["a.wav"]


def test_marks_in_names_are_part_of_the_names(tmp_path):
    names = ("x[1]/a[b]#c?.wav", "y#2/d%20e.wav", "z?3/*.wav")
    touch(tmp_path, *names)
    for name in names:
        folder, _, base = name.partition("/")
        assert listing(tmp_path / name)[0] == [base]
        assert listing(tmp_path / folder)[0] == [base]
        assert listing(tmp_path / folder / "**")[0] == [base]
    assert listing(tmp_path / "x[1]" / "*.wav")[0] == ["a[b]#c?.wav"]
    path = manifest(tmp_path, "m.jsonl", [{"path": name} for name in names])
    assert listing(path)[0] == sorted(names)
    assert listing(f"file://{tmp_path}/x%5B1%5D/a%5Bb%5D%23c%3F.wav")[0] == ["a[b]#c?.wav"]
    assert listing(f"file://{tmp_path}/y#2/d%2520e.wav")[0] == ["d%20e.wav"]
