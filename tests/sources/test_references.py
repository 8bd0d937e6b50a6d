"""Texts to score against."""

from __future__ import annotations

import pytest

from pipeline.sources.recording import InputError
from pipeline.sources.references import read_references, read_truths
from tests.reading.made_audio import vowels, write
from tests.sources.inputs import listed, manifest


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
