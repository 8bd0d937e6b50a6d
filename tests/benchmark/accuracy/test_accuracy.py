"""The yardstick: what is counted, and that what is done is not done again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from jobs import cli
from jobs.benchmark import benchmark
from pipeline.benchmark.accuracy import runs
from pipeline.benchmark.accuracy.corpus import CorpusError, Spoken, read_corpus
from pipeline.benchmark.accuracy.onsets import onsets
from pipeline.benchmark.accuracy.report import compare
from pipeline.benchmark.accuracy.runs import OtherRunError, Request, run_program
from pipeline.benchmark.accuracy.scores import score, summary
from pipeline.engine.model.snapshot import DEMO_FOLDER


def spoken(text, *, language="en", sentences=(), file="a.wav", path=None):
    return Spoken(
        file=file, path=path, group="read", language=language, text=text, duration_s=10.0, sentences=sentences
    )


def heard(*segments, edges_s=(), language="en"):
    text = " ".join(text for _, _, text in segments)
    return {"file": "a.wav", "text": text, "segments": segments, "edges_s": list(edges_s),
            "language": language, "cpu_s": 1.0}  # fmt: skip


def test_words_lost_and_doubled_count_where_windows_meet_and_not_elsewhere():
    one = spoken("red green blue pink grey teal brown black white gold")
    lost = score(one, heard((0, 5, "green blue pink grey"), (5, 9, "brown black white gold"), edges_s=[5]),
                 asked_language=False)  # fmt: skip
    assert (lost.num_edges, lost.num_lost, lost.num_doubled) == (1, 1, 0)
    assert (lost.first_right, lost.last_right) == (False, True)
    doubled = score(
        one, heard((0, 5, "red green blue pink grey"), (5, 9, "grey teal brown black white"), edges_s=[5]),
        asked_language=False,
    )  # fmt: skip
    assert (doubled.num_lost, doubled.num_doubled) == (0, 1)


def test_starts_are_those_of_segments_that_begin_a_sentence():
    one = spoken("good day to you how are you", sentences=((1.0, "good day to you"), (4.0, "how are you")))
    segments = ((1.2, 3, "Good day"), (2.5, 3, "to you."), (3.9, 5, "How are you?"))
    found = score(one, heard(*segments), asked_language=False, onsets_s=(1.1, 4.0))
    assert found.late_as_stated_s == pytest.approx((0.2, -0.1))
    assert found.late_s == pytest.approx((0.1, -0.1))
    assert summary([found])["start_error_as_stated_median_s"] == pytest.approx(0.15)


def test_a_sentence_begins_where_its_sound_does():
    samples = np.zeros(6 * 16_000, np.float32)
    samples[16_000:32_000] = samples[56_000:] = 0.5
    samples[48_000:56_000] = 0.001  # breath
    assert list(onsets(samples, [0.2, 3.0])) == pytest.approx([1.0, 3.5], abs=0.03)


def test_words_where_nobody_speaks_are_invented():
    found = score(spoken("", language="zxx"), heard((0, 1, "Thank you.")), asked_language=False)
    assert summary([found])["num_invented"] == 2
    assert summary([found])["wer"] is None


def test_languages_are_scored_only_where_programs_were_asked():
    one = spoken("bonjour", language="fr")
    answers = [
        score(one, heard((0, 1, "bonjour"), language=code), asked_language=True) for code in ("fr", "it")
    ]
    assert summary(answers)["language_accuracy"] == 0.5
    assert summary([score(one, heard((0, 1, "bonjour")), asked_language=False)])["language_accuracy"] is None


@pytest.fixture
def manifest(tmp_path):
    """Three recordings of half a second of nothing."""
    lines = []
    for name in ("a.wav", "b.wav", "c.wav"):
        soundfile.write(tmp_path / name, np.zeros(8000, np.int16), 16_000)
        row = {"audio_filepath": name, "text": "" if name == "c.wav" else "x", "duration": 0.5}
        lines.append(json.dumps(row | {"lang": "zxx" if name == "c.wav" else "en"}))
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(lines))
    (tmp_path / "parts.tsv").write_text("file\tstart_s\tend_s\ttext\na.wav\t0.1\t0.4\tX\n")
    return path


def test_a_corpus_names_its_sets_and_sentences(manifest):
    first, second, third = read_corpus(manifest)
    assert (first.group, first.sentences, second.sentences) == (manifest.parent.name, ((0.1, "X"),), ())
    assert (first.is_silent, third.is_silent) == (False, True)


def test_a_line_that_is_wrong_is_named(manifest):
    manifest.write_text(manifest.read_text() + '\n{"audio_filepath": "d.wav", "text": "", "lang": "en"}')
    with pytest.raises(CorpusError, match=r"manifest.jsonl: line 4: 'duration'"):
        read_corpus(manifest)


def request_of(manifest, tmp_path, **changes):
    values = {"manifest": manifest, "recordings": read_corpus(manifest), "model": DEMO_FOLDER,
              "output": tmp_path / "out", "asks_language": False}  # fmt: skip
    (tmp_path / "out").mkdir(exist_ok=True)
    return Request(**(values | changes))


@pytest.fixture
def asked(monkeypatch):
    """Programs that write what they are asked, in the place of processes; returns what was asked."""
    calls = []

    def lines(name, request, language, recordings):
        for one in recordings:
            calls.append((one.file, language))
            yield json.dumps(heard((0.0, 0.4, "x")) | {"file": one.file}) + "\n"

    monkeypatch.setattr(runs, "_lines", lines)
    return calls


def test_what_is_done_is_not_done_again_and_a_torn_line_is(manifest, tmp_path, asked):
    request = request_of(manifest, tmp_path)
    run_program("earshard", request)
    assert asked == [("a.wav", "en"), ("b.wav", "en"), ("c.wav", "auto")]
    path = tmp_path / "out" / "earshard.jsonl"
    path.write_text(path.read_text()[:-20])
    asked.clear()
    rows = run_program("earshard", request)
    assert asked == [("c.wav", "auto")]
    assert [row["file"] for row in rows] == ["a.wav", "b.wav", "c.wav"]


def test_results_of_another_way_of_asking_are_refused(manifest, tmp_path, asked):
    run_program("earshard", request_of(manifest, tmp_path))
    with pytest.raises(OtherRunError, match="language was given and is now auto; choose another --output"):
        run_program("earshard", request_of(manifest, tmp_path, asks_language=True))


def test_the_page_shows_every_set_and_program(manifest, tmp_path, asked):
    outcome = compare(request_of(manifest, tmp_path), ["earshard"])
    figures = outcome["programs"]["earshard"]["sets"]["all"]
    assert (figures["wer"], figures["num_invented"], figures["num_words"]) == (0.0, 1, 2)
    page = (tmp_path / "out" / "accuracy.html").read_text()
    assert "0.00% (0.00% to 0.00%)" in page
    assert json.loads((tmp_path / "out" / "accuracy.json").read_text()) == json.loads(json.dumps(outcome))


def test_accuracy_without_a_model_is_wrong_use(manifest):
    with pytest.raises(cli.WrongUse, match="--accuracy: needs --model"):
        benchmark.main(["--accuracy", str(manifest)], standalone_mode=False)


@pytest.mark.slow
def test_our_own_program_transcribes_in_a_process_of_its_own(manifest, tmp_path):
    (row, *_) = run_program("earshard", request_of(manifest, tmp_path))
    assert (row["file"], row["text"], row["segments"]) == ("a.wav", "", [])
    assert row["cpu_s"] > 0
