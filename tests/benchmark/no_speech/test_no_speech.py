"""How often text is invented where nobody speaks: what is heard, and what is counted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from jobs import cli
from jobs.benchmark import benchmark
from pipeline.benchmark.accuracy import runs
from pipeline.benchmark.accuracy.corpus import CorpusError, read_corpus
from pipeline.benchmark.accuracy.programs import OURS, PROGRAMS, our_setting
from pipeline.benchmark.no_speech import clips
from pipeline.benchmark.no_speech import sounds as made
from pipeline.benchmark.no_speech.clips import write_clips
from pipeline.benchmark.no_speech.report import count_invented, settings, tables, wilson
from pipeline.benchmark.no_speech.sounds import KINDS, LENGTHS_S, LEVELS_DB, Sound, sounds
from pipeline.engine.model.snapshot import DEMO_FOLDER
from tests.engine.conftest import make_speechlike
from tests.real_weights import WEIGHTS, needs_weights


def test_sounds_are_the_same_every_time_at_every_level_and_length(monkeypatch):
    monkeypatch.setattr(made, "LENGTHS_S", (4.0, 5.0))  # a breath takes 3.5 s
    found, again = list(sounds()), list(sounds())
    assert len(found) == len(KINDS) * len(LEVELS_DB) * 2 + 2
    assert len({one.name for one in found}) == len(found)
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(found, again, strict=True))
    levels = {
        round(20 * np.log10(np.sqrt(np.mean((one.samples / 32768) ** 2))))
        for one in found
        if one.kind.endswith("noise")
    }
    assert levels == set(LEVELS_DB)


@pytest.fixture
def noises(tmp_path):
    """A manifest of 25 s in which nobody speaks."""
    soundfile.write(tmp_path / "hiss.wav", make_speechlike(25.0, seed=1), 16_000)
    path = tmp_path / "noises.jsonl"
    row = {"audio_filepath": "hiss.wav", "text": "", "lang": "zxx", "duration": 25.0, "set": "street"}
    path.write_text(json.dumps(row) + "\n")
    return path


@pytest.fixture
def few_sounds(monkeypatch):
    """Two sounds in the place of all."""
    made = [Sound(kind=kind, name=kind, samples=np.zeros(8000, np.int16)) for kind in ("hum", "silence")]
    monkeypatch.setattr(clips, "sounds", lambda: iter(made))


def test_recordings_are_cut_into_windows_and_sounds_join_them(noises, tmp_path, few_sounds):
    found = read_corpus(write_clips(noises, tmp_path / "clips"))
    assert [one.group for one in found] == ["recorded: street"] * 3 + ["hum", "silence"]
    assert [round(one.duration_s, 1) for one in found] == [8.3, 8.3, 8.3, 0.5, 0.5]
    assert all(one.is_silent for one in found)
    original, _ = soundfile.read(tmp_path / "hiss.wav", dtype="int16")
    pieces = [soundfile.read(one.path, dtype="int16")[0] for one in found[:3]]
    assert np.array_equal(np.concatenate(pieces), original)


def test_a_recording_in_which_somebody_speaks_is_refused(noises, tmp_path):
    noises.write_text(noises.read_text().replace("zxx", "en"))
    with pytest.raises(CorpusError, match=r"hiss.wav: lang is en, it must be zxx"):
        write_clips(noises, tmp_path / "clips")


def test_windows_with_text_are_counted_by_kind_and_the_same_again_resumes(
    noises, tmp_path, few_sounds, monkeypatch
):
    asked = []

    def lines(name, _request, language, recordings):
        asked.append((name, language))
        for one in recordings:
            text = "Thank you." if one.file == "hum.wav" and name.endswith("off") else ""
            yield json.dumps({"file": one.file, "text": text, "cpu_s": 1.0}) + "\n"

    monkeypatch.setattr(runs, "_lines", lines)
    programs = [our_setting(0, voice_activity=heeds) for heeds in (True, False)]
    outcome = count_invented(noises, DEMO_FOLDER, tmp_path / "out", programs)
    assert asked == [("earshard", "auto"), ("earshard voice activity off", "auto")]
    on, off = (outcome["programs"][name] for name in programs)
    assert (on["kinds"]["all"]["share"], on["texts"]) == (0.0, {})
    assert (off["kinds"]["all"]["num_with_text"], off["kinds"]["all"]["share"]) == (1, 0.2)
    assert off["texts"] == {"hum.wav": "Thank you."}
    (table,) = tables(outcome)
    assert table.header == ("sound", "windows", *programs)
    assert table.rows[-1] == ("all", "5", "0 (0.0%), 0.0% to 43.4%", "1 (20.0%), 3.6% to 62.4%")
    assert json.loads((tmp_path / "out" / "no-speech.json").read_text()) == json.loads(json.dumps(outcome))
    count_invented(noises, DEMO_FOLDER, tmp_path / "out", programs)
    assert len(asked) == 2


def test_wilsons_interval_is_that_of_published_tables():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_a_model_without_evidence_has_no_levels_and_every_setting_is_a_program():
    assert settings(DEMO_FOLDER) == [OURS, f"{OURS} voice activity off"]
    assert {our_setting(rung, voice_activity=False) for rung in range(4)} <= PROGRAMS.keys()


def test_it_needs_a_model_and_takes_no_language(noises):
    with pytest.raises(cli.WrongUse, match="--no-speech: needs --model"):
        benchmark.main(["--no-speech", str(noises)], standalone_mode=False)
    with pytest.raises(cli.WrongUse, match="--ask-languages: does nothing with --no-speech"):
        benchmark.main(["--no-speech", str(noises), "--ask-languages"], standalone_mode=False)


@needs_weights
@pytest.mark.slow
def test_real_weights_invent_nothing_over_noise_hum_and_music():
    from pipeline.engine import Engine

    engine = Engine.load(WEIGHTS / "whisper-base", dtype="float32")
    length_s = min(LENGTHS_S)
    heard = [one for one in sounds() if one.name.endswith(f"_30dB_{length_s:g}s")]
    assert len(heard) == len(KINDS)
    results = engine.transcribe([one.samples for one in heard], languages=["en"] * len(heard))
    assert {one.kind: result.text for one, result in zip(heard, results, strict=True)} == dict.fromkeys(
        KINDS, ""
    )
