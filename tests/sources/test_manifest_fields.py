"""Manifests of every format have the same fields by the same names; what is not understood is a bad line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.planning import make_plan
from pipeline.sources.listing import list_recordings
from pipeline.sources.manifest_fields import FIELD_NAMES
from pipeline.sources.manifests import clip_member, parse_clip
from tests.reading.made_audio import RATE, vowels, write
from tests.reading.read_rows import content, open_reader
from tests.sources.inputs import error_of, heard, listed, manifest

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "csv.gz")
IDS = {"ids": str}


def in_format(folder, kind, *lines):
    """A manifest of `kind` of lines that have the same names."""
    path = folder / f"m.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(list(lines)), path)
        return path
    if kind == "json":
        path.write_text(json.dumps(list(lines), indent=2))
        return path
    if kind.startswith("jsonl"):
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
    else:
        table = io.StringIO()
        rows = csv.writer(table, delimiter="\t" if kind.startswith("tsv") else ",", lineterminator="\n")
        rows.writerows([list(lines[0]), *(list(line.values()) for line in lines)])
        text = table.getvalue()
    if kind.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def only(path, **how):
    (recording,) = listed(path, **how)[0].values()
    return recording


@pytest.mark.parametrize("kind", FORMATS, **IDS)
def test_every_accepted_name_is_understood_in_every_format(tmp_path, kind):
    write(tmp_path / "a.wav", vowels(0.5))
    for name in FIELD_NAMES["path"]:
        assert only(in_format(tmp_path, kind, {name: "a.wav", "id": "x"})).uri == str(tmp_path / "a.wav")
    for field, stored in (("text", "reference"), ("language", "language"), ("prompt", "prompt")):
        for name in FIELD_NAMES[field]:
            found = only(in_format(tmp_path, kind, {"path": "a.wav", name: "de"}))
            assert getattr(found, stored) == "de", name
    for name in FIELD_NAMES["id"]:
        assert only(in_format(tmp_path, kind, {"path": "a.wav", name: "me"})).recording_id == "me"


@pytest.mark.parametrize("kind", FORMATS, **IDS)
def test_an_offset_without_a_duration_goes_on_to_the_end(tmp_path, kind):
    write(tmp_path / "a.wav", vowels(6))
    path = in_format(tmp_path, kind, {"audio_filepath": "a.wav", "offset": 3.25})
    assert heard(path) == {"a.wav#t=3.2500": 2.75}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("value", [1, "1", [1], ["1"], 1.0, "1.0", "[1]"], **IDS)
def test_a_channel_is_a_number_a_text_or_a_list_of_one(tmp_path, kind, value):
    silent, voice = np.zeros(2 * RATE), vowels(2)
    write(tmp_path / "a.wav", np.stack([silent, voice], 1))
    path = in_format(tmp_path, kind, {"path": "a.wav", "channel": value, "id": "x"})
    plan = make_plan(list_recordings([str(path)]).recordings, shard_hours=1.0)
    with open_reader() as reader:
        _, samples = content(reader.read(0, 1, plan.to_pylist()))
    assert np.abs(samples[0] - np.round(voice * 32767)).max() <= 1


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("channel", value) for value in ("x", "-1", "1.5", "[0, 1]", "left")),
        *(("offset", value) for value in ("soon", "-1", "1,5", "00:01", "nan", "inf")),
        *(("duration", value) for value in ("long", "-0.5")),
        *(("language", value) for value in ("English (US)", "e", "12")),
    ],
)
def test_a_value_that_is_not_understood_is_a_bad_line(tmp_path, kind, field, value):
    write(tmp_path / "a.wav", vowels(0.5))
    good = {"path": "a.wav", "id": "good", field: ""}
    path = in_format(tmp_path, kind, good, {"path": "a.wav", "id": "bad", field: value})
    message = error_of(path)
    assert f"line {3 if kind in ('csv', 'tsv') else 2}: {field} is " in message
    assert "1 bad line: " in message


@pytest.mark.parametrize("value", [{"number": 1}, [], [0, 1], ["x"], True, -1, 0.5], **IDS)
def test_a_channel_that_json_alone_can_write_wrongly_is_a_bad_line(tmp_path, value):
    assert "line 1: channel is " in error_of(
        manifest(tmp_path, "m.jsonl", [{"path": "a.wav", "channel": value}])
    )


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_times_that_are_evidently_milliseconds_are_a_bad_line(tmp_path, kind, name):
    write(tmp_path / name, vowels(1.9))
    for line in ({"duration": 1900}, {"offset": 400, "duration": 1500.0}, {"offset": 1900}):
        path = in_format(tmp_path, kind, {"path": name, **line})
        assert "milliseconds" in error_of(path)
    for duration in (1.9, 1.0, 60, 1900.25):  # wrong perhaps, and no milliseconds
        assert only(in_format(tmp_path, kind, {"path": name, "duration": duration})).duration_s == duration


def test_a_short_file_of_a_long_recording_is_not_taken_for_milliseconds(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert only(manifest(tmp_path, "m.jsonl", [{"path": "a.wav", "duration": 3600}])).duration_s == 3600


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("spaces.csv", ["id , audio_filepath , text", "x , a.wav , said so"]),
        ("spaces.tsv", [" id\taudio_filepath \t text ", "x\ta.wav\tsaid so"]),
        ("quoted.csv", ["id, audio_filepath, text", 'x, a.wav, "said so"']),
        ("capitals.csv", ["ID,Audio_FilePath,Text", "x,a.wav,said so"]),
        ("mark.csv", ["﻿id,audio_filepath,text", "x,a.wav,said so"]),
        ("tabs.csv", ["id\taudio_filepath\ttext", "x\ta.wav\tsaid so"]),
        ("bars.csv", ["id|audio_filepath|text", "x|a.wav|said so"]),
        ("array.json", ['[{"id": "x", "audio_filepath": "a.wav", "text": "said so"}]']),
        ("blank.json", ["", '[{"id": "x", "audio_filepath":', '"a.wav", "text": "said so"}]']),
        ("array.jsonl", ['[{"id": "x",', '"audio_filepath": "a.wav", "text": "said so"}]']),
        ("spaces.jsonl", ['{" id": "x", "audio_filepath ": "a.wav", "Text": "said so"}']),
        ("inner.jsonl", ['{"id": "x", "audio": {"path": "a.wav", "bytes": null}, "text": "said so"}']),
    ],
)
def test_other_spellings_of_a_manifest(tmp_path, name, lines):
    write(tmp_path / "a.wav", vowels(0.5))
    found = only(manifest(tmp_path, name, lines))
    assert (found.recording_id, found.uri, found.reference) == ("x", str(tmp_path / "a.wav"), "said so")


def test_in_a_table_of_semicolons_a_comma_is_text(tmp_path):
    path = manifest(tmp_path, "m.csv", ["id;path;text", "x;a.wav;said so, and more"])
    assert only(path).reference == "said so, and more"


def test_a_column_of_a_long_text_is_read(tmp_path):
    path = manifest(tmp_path, "m.csv", ["id,path,text", f"x,a.wav,{'word ' * 40_000}"])
    assert len(only(path).reference) == 200_000


def test_items_that_are_no_objects_and_arrays_that_are_cut_are_told(tmp_path):
    assert "line 2: is no JSON object" in error_of(manifest(tmp_path, "m.json", ['[{"path": "a"}, 5]']))
    assert "is no JSON array" in error_of(manifest(tmp_path, "n.json", ['[{"path": "a"}, ']))


def test_a_name_that_stands_twice_is_told(tmp_path):
    assert "two columns are called path" in error_of(manifest(tmp_path, "m.csv", ["path,Path", "a,b"]))
    assert "line 1: has a name twice" in error_of(
        manifest(tmp_path, "m.jsonl", [{"path": "a", "Path ": "b"}])
    )


@pytest.mark.parametrize(
    ("said", "code"), [("en-GB", "en"), ("PT_br", "pt"), (" fr ", "fr"), ("auto", None), ("zxx", None)]
)
def test_a_language_is_its_code(tmp_path, said, code):
    assert only(manifest(tmp_path, "m.jsonl", [{"path": "a.wav", "lang": said}])).language == code


def test_a_prompt_and_a_language_reach_the_plan(tmp_path):
    path = manifest(tmp_path, "m.jsonl", [{"path": "a.wav", "lang": "de", "prompt": "Guten Tag"}])
    (row,) = make_plan(list_recordings([str(path)]).recordings, shard_hours=1.0).to_pylist()
    assert (row["language"], row["prompt"]) == ("de", "Guten Tag")


def test_a_path_is_found_in_either_form_of_unicode(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café.wav") for form in ("NFC", "NFD"))
    write(tmp_path / decomposed, vowels(0.5))
    assert heard(manifest(tmp_path, "m.jsonl", [{"path": composed, "id": "x"}])) == {"x": 0.5}


def test_a_clip_behind_the_end_of_its_file_fails_and_one_over_it_is_partial(tmp_path):
    write(tmp_path / "a.wav", vowels(6))
    lines = [
        {"path": "a.wav", "id": "past", "offset": 10},
        {"path": "a.wav", "id": "at the end", "offset": 6.0, "duration": 2.0},
        {"path": "a.wav", "id": "over", "offset": 5, "duration": 4},
    ]
    found = heard(manifest(tmp_path, "m.jsonl", lines))
    assert found == {"past": "no_audio", "at the end": "no_audio", "over": 1.0}


def test_a_clip_is_read_as_it_was_written():
    assert parse_clip(clip_member(1.5, 2.0, 3)) == (1.5, 3.5, 3)
    assert parse_clip(clip_member(1.5, None, None)) == (1.5, float("inf"), None)
    assert parse_clip(clip_member(None, 4.0, 0)) == (0.0, float("inf"), 0)
    assert clip_member(0.0, None, None) is None


def test_a_span_of_no_length_is_a_bad_line(tmp_path):
    line = {"path": "a.wav", "offset": 1.0, "duration": 0}
    assert "duration is 0" in error_of(manifest(tmp_path, "m.jsonl", [line]))
