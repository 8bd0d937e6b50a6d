"""Exports and reports by the language of segments."""

from __future__ import annotations

import json

import pytest

from pipeline.results.recordings import in_languages, join_rows
from tests.results.made_output import DAY, make, marker, run_record
from tests.results.made_output import make_output as output_of
from tests.results.made_output import transcript as row_of
from tests.results.test_exports import export, make_output, segment, transcript

EN, FR = segment("one two", 0.0, 1.0, language="en"), segment("trois quatre", 1.0, 4.0, language="fr")
DE = segment("fünf", 5.0, 6.0)  # of a first output, whose segments say no language


@pytest.fixture
def output(tmp_path):
    """A recording in two languages, one in one, one whose row alone says its language, one that failed."""
    failed = {"status": "failed", "text": None, "language": None, "error_type": "corrupt"}
    rows = [
        transcript("both.wav", [EN, FR]),
        transcript("en.wav", [EN]),
        transcript("old.wav", [DE], language="de"),
        transcript("bad.wav", **failed),
    ]
    return make_output(tmp_path / "out", rows)


def lines(output, kind="jsonl", name="transcripts.jsonl"):
    return [json.loads(line) for line in (output / "export" / name).read_text().splitlines()]


def test_an_export_has_the_segments_in_the_languages_alone(output):
    assert export(output, "jsonl", "--languages", "fr")["num_written"] == 1
    (line,) = lines(output)
    assert (line["recording_id"], line["text"], line["language"]) == ("both.wav", "trois quatre", "fr")
    assert [(one["id"], one["language"]) for one in line["segments"]] == [(0, "fr")]
    assert line["language_probability"] is None
    export(output, "srt", "--languages", "en,de")
    assert (output / "export" / "both.wav.srt").read_text().strip().endswith("one two")
    assert (output / "export" / "old.wav.srt").exists()
    assert export(output, "jsonl", "--languages", "xx")["num_written"] == 0


def test_a_manifest_has_whole_recordings_in_the_languages_alone(output):
    export(output, "nemo", "--languages", "en")
    assert [line["text"] for line in lines(output, name="manifest.jsonl")] == ["one two"]
    export(output, "nemo", "--languages", "en,fr")
    assert [line["text"] for line in lines(output, name="manifest.jsonl")] == [
        "one two trois quatre",
        "one two",
    ]


def test_what_was_translated_stays_english():
    whole = join_rows([transcript("a.wav", [FR, DE], language="fr", text_language="en")])
    kept = in_languages(whole, {"fr"})
    assert (kept.language, kept.text_language, kept.text) == ("fr", "en", "trois quatre fünf")


def test_clips_of_a_data_set_are_of_one_language(output):
    from pipeline.results.clips import ClipRules, clips_of

    row = transcript("both.wav", [EN, FR]) | {"same_as": None, "text_language": None}
    found = clips_of(row, ClipRules(target_s=20.0, languages=("fr",)))
    assert [(clip.text, clip.language, clip.reason) for clip in found] == [
        ("one two", "en", "language"),
        ("trois quatre", "fr", None),
    ]


def spoken(**seconds):
    return [{"language": language, "speech_s": value} for language, value in seconds.items()]


@pytest.fixture
def reported(tmp_path):
    """One shard: a recording in two languages, one in French, a copy of it, one that says no seconds."""
    french = {"language": "fr", "languages": spoken(fr=300.0), "segments": [FR]}
    rows = [
        row_of("both.wav", 0, language="en", languages=spoken(en=900.0, fr=100.0), segments=[EN, FR]),
        row_of("fr.wav", 0, num_substitutions=15, **french),
        row_of("copy.wav", 0, num_substitutions=15, same_as="fr.wav", **french),
        row_of("old.wav", 0, language="de", segments=[DE], reference=None, num_hits=None),
    ]
    return output_of(tmp_path / "out", [marker(0, "r1", DAY)], rows, [run_record("r1", DAY)])


def test_a_report_has_figures_of_each_language_and_counts_the_speech_of_copies_once(reported):
    figures = {one.group: one for one in make(reported).by_language}
    assert list(figures) == ["de", "en", "fr"]  # most speech first
    assert (figures["fr"].num_recordings, figures["fr"].num_segments, figures["fr"].speech_s) == (3, 3, 400.0)
    assert figures["de"].speech_s == 1500.0
    assert (figures["en"].wer, figures["fr"].wer) == pytest.approx((0.1, 0.25))
    assert figures["fr"].wer_low == pytest.approx(0.25)
    assert figures["de"].wer is None


def test_a_report_shows_the_languages_that_are_asked_for(reported):
    import subprocess
    import sys

    command = [sys.executable, "-m", "jobs.report", str(reported), "--languages", "fr,en"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [one["group"] for one in json.loads(done.stdout)["by_language"]] == ["en", "fr"]
    (french,) = [line for line in done.stderr.splitlines() if line.startswith("│ fr ")]
    cells = [cell.strip() for cell in french.strip("│").split("│")]
    assert cells == ["fr", "3", "3", "6.7 min", "0.0%", "25.00%", "25.0% to 25.0%"]
    assert "│ de " not in done.stderr
