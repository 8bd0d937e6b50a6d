"""Inputs of every kind become recordings with stable ids; what is wrong is one line that says where."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.planning import make_plan
from pipeline.reading.shard_reader import ShardReader
from pipeline.sources.listing import list_recordings
from pipeline.sources.recording import InputError
from pipeline.sources.references import read_references, read_truths
from tests.reading.made_audio import RATE, vowels, wav_bytes, write
from tests.reading.test_shard_reader import content, options


def listed(*inputs, **how):
    listing = list_recordings([str(i) for i in inputs], **how)
    return {recording.recording_id: recording for recording in listing.recordings}, listing.skipped


def error_of(*inputs, **how):
    with pytest.raises(InputError) as caught:
        listed(*inputs, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def heard(*inputs, **how):
    """Seconds decoded of every recording of the inputs, or its error."""
    plan = make_plan(list_recordings([str(i) for i in inputs], **how).recordings, shard_hours=1.0)
    with ShardReader(options()) as reader:
        row, _ = content(reader.read(0, 1, plan.to_pylist()))
    return {r["recording_id"]: r["error_type"] or round(r["duration_s"], 3) for r in row["recordings"]}


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
    with ShardReader(options()) as reader:
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
    assert "refused" in error_of(tmp_path)


def manifest(tmp_path, name, lines):
    path = tmp_path / name
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


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
    with ShardReader(options()) as reader:
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


def test_two_lines_of_one_id_are_stated(tmp_path):
    path = manifest(tmp_path, "m.jsonl", [{"id": "x", "path": "a.wav"}, {"id": "x", "path": "b.wav"}])
    with pytest.raises(InputError, match="'x'"):
        make_plan(list_recordings([str(path)]).recordings, shard_hours=1.0)


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


def test_lhotse_recordings_and_cuts(tmp_path):
    write(tmp_path / "a.wav", np.stack([vowels(4, seed=1), np.zeros(4 * RATE)], 1))
    recording = {
        "id": "rec", "sources": [{"type": "file", "channels": [0, 1], "source": "a.wav"}],
        "sampling_rate": RATE, "num_samples": 4 * RATE, "duration": 4.0, "channel_ids": [0, 1],
    }  # fmt: skip
    cut = {
        "id": "cut", "start": 1.0, "duration": 1.5, "channel": 1, "type": "MonoCut", "recording": recording,
        "supervisions": [{"id": "s", "text": "hello"}, {"id": "t", "text": "there"}],
    }  # fmt: skip
    assert heard(manifest(tmp_path, "recordings.jsonl", [recording])) == {"rec": 4.0}
    path = manifest(tmp_path, "cuts.jsonl", [cut])
    assert listed(path)[0]["cut"].reference == "hello there"
    plan = make_plan(list_recordings([str(path)]).recordings, shard_hours=1.0)
    with ShardReader(options()) as reader:
        row, samples = content(reader.read(0, 1, plan.to_pylist()))
    assert row["recordings"][0]["duration_s"] == 1.5
    assert not samples[0].any()  # the second channel is silent


@pytest.mark.parametrize("change", [
    {"sources": [{"type": "command", "source": "rm -rf x", "channels": [0]}]}, {"sources": []},
    {"transforms": [{"name": "Speed"}]}, {"tracks": []},
])  # fmt: skip
def test_what_lhotse_would_run_or_mix_is_a_bad_line(tmp_path, change):
    source = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}], "duration": 1.0}
    assert "line 1: " in error_of(manifest(tmp_path, "m.jsonl", [source | change]))


def archive(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = data
                tar.addfile(info)
    return path


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


def test_parquet_with_audio_in_it(tmp_path):
    rows = [
        {"audio": {"bytes": wav_bytes(vowels(0.5 + i)), "path": f"{i}.wav"}, "sentence": f"s{i}"}
        for i in range(3)
    ]
    rows.append({"audio": None, "sentence": "nothing"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=2)
    recordings, _ = listed(tmp_path / "x.parquet")
    assert [r.reference for r in recordings.values()] == ["s0", "s1", "s2", "nothing"]
    found = heard(tmp_path / "x.parquet")
    assert list(found.values()) == [0.5, 1.5, 2.5, "no_audio"]
    assert next(iter(found)) == "x.parquet/row-0000000"


def test_references_match_by_every_name(tmp_path):
    for name in ("a.wav", "sub/b.wav", "c.wav", "d.wav"):
        write(tmp_path / "in" / name, vowels(0.1))
    rows = [
        ("a.wav", "by id"),
        ("in/sub/b.wav", "by place"),
        (str(tmp_path / "in" / "c.wav"), "by path"),
        ("z", "-"),
    ]
    path = manifest(tmp_path, "refs.tsv", ["path\ttext", *("\t".join(row) for row in rows)])
    recordings, _ = listed(tmp_path / "in", references=read_references(str(path)))
    assert {name: r.reference for name, r in recordings.items()} == {
        "a.wav": "by id", "sub/b.wav": "by place", "c.wav": "by path", "d.wav": None,
    }  # fmt: skip


def test_references_that_contradict_or_say_nothing_are_one_line(tmp_path):
    twice = manifest(tmp_path, "a.jsonl", [{"path": "x", "text": "1"}, {"path": "x", "text": "2"}])
    silent = manifest(tmp_path, "b.jsonl", [{"path": "x"}])
    nameless = manifest(tmp_path, "c.jsonl", [{"text": "x"}])
    for path, number in ((twice, 2), (silent, 1), (nameless, 1)):
        with pytest.raises(InputError, match=f"{path.name}: line {number}: "):
            read_references(str(path))
    with pytest.raises(InputError, match="no such file"):
        read_references(str(tmp_path / "gone.tsv"))


def test_truths_carry_language_and_segments(tmp_path):
    line = {"path": "a.wav", "text": "x", "language": "de", "segments": [{"start": 0.5}]}
    path = manifest(tmp_path, "t.jsonl", [line])
    truths = read_truths(str(path), {"1/a.wav": str(tmp_path / "a.wav"), "other": "/other.wav"})
    assert set(truths) == {"1/a.wav"}
    assert truths["1/a.wav"]["language"] == "de"
    assert truths["1/a.wav"]["segments"] == [{"start": 0.5}]


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
