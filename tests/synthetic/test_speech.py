"""Speech, scenes and held-out sets; skipped where libespeak-ng is missing."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from tests.synthetic import held_out
from tests.synthetic.held_out import write_further
from tests.synthetic.noise import add_echo, add_noise, coloured_noise, degrade
from tests.synthetic.scenes import HELD_OUT_VARIANTS, TRAIN_VARIANTS, Layout, Script, compose
from tests.synthetic.speech import SAMPLE_RATE, SpeechUnavailableError, Voice, require_speech, synthesize

try:
    require_speech()
    MISSING = ""
except SpeechUnavailableError as error:
    MISSING = str(error)

ROOT = Path(__file__).parents[2]
needs_speech = pytest.mark.skipif(bool(MISSING), reason=MISSING or "libespeak-ng is there")

_FINGERPRINT = """
import hashlib, random
from tests.synthetic.scenes import Script, compose
scene = compose(random.Random(3), Script(language="es", layout="packed", duration_s=5, split="dev"))
print(hashlib.sha256(scene.samples.tobytes()).hexdigest(), scene.text)
"""


@needs_speech
def test_word_times_are_in_order_and_inside_the_utterance() -> None:
    utterance = synthesize("the captain of the boat is in the kitchen", Voice(language="en"))
    starts, ends = np.array(utterance.word_starts_s), np.array(utterance.word_ends_s)
    assert len(starts) == 9
    assert (np.diff(starts) >= 0).all()
    assert (starts <= ends).all()
    assert ends[-1] <= utterance.duration_s
    assert len({name for name, _ in utterance.phonemes}) > 8


@needs_speech
def test_two_fresh_processes_make_the_same_samples() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", _FINGERPRINT], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].split()) > 3


@needs_speech
@pytest.mark.parametrize("layout", get_args(Layout))
def test_sentences_of_a_scene_lie_where_the_sound_is(layout: str) -> None:
    scene = compose(random.Random(1), Script(language="en", layout=layout, duration_s=20, split="dev"))
    covered = np.zeros(len(scene.samples), dtype=bool)
    for placed in scene.sentences:
        covered[round(placed.start_s * SAMPLE_RATE) : round(placed.end_s * SAMPLE_RATE)] = True
    assert not scene.samples[~covered].any()
    assert bool(scene.sentences) == (layout != "empty")
    if layout == "half":
        assert scene.sentences[-1].end_s <= 10


def test_held_out_voices_are_not_training_voices() -> None:
    dev, final = (set(HELD_OUT_VARIANTS[split]) for split in ("dev", "final"))
    assert not set(TRAIN_VARIANTS) & (dev | final)
    assert not dev & final


def test_noise_stands_at_the_ratio_it_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    speech = 0.1 * coloured_noise(rng, 32_000, 0.5)
    added = add_noise(rng, speech, 10.0) - speech
    assert 10 * np.log10(speech.var() / added.var()) == pytest.approx(10, abs=0.3)


def test_degraded_speech_never_clips_and_an_echo_comes_late() -> None:
    rng = np.random.default_rng(3)
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[100] = 1.0
    echo = np.flatnonzero(add_echo(rng, click))
    assert echo[0] == 100
    assert 0.02 * SAMPLE_RATE <= echo[1] - 100 <= 0.15 * SAMPLE_RATE
    speech = 0.9 * coloured_noise(rng, SAMPLE_RATE, 0.5).clip(-1, 1)
    assert max(float(np.abs(degrade(rng, speech)).max()) for _ in range(30)) <= 1.0


@needs_speech
@pytest.mark.slow
def test_further_windows_are_the_same_bytes_for_a_seed_and_others_for_another(tmp_path, monkeypatch):
    few = [replace(one, min_words=min(60, one.min_words)) for one in held_out.SETS]
    monkeypatch.setattr(held_out, "SETS", [replace(one, min_windows=min(9, one.min_windows)) for one in few])

    def written(name, seed):
        rows = write_further(tmp_path / name, seed, 60)
        files = (tmp_path / name).rglob("*.*")
        return rows, {
            str(path.relative_to(tmp_path / name)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    rows, files = written("one", 5)
    assert {row["set"]: row["num_windows"] for row in rows}["no-speech"] == 9
    assert all(60 <= row["num_words"] < 200 for row in rows if row["set"] != "no-speech")
    assert {row["split"] for row in rows} == {"final"}
    assert (rows, files) == written("two", 5)
    _, others = written("three", 6)
    assert not {content for name, content in files.items() if "no-speech" not in name} & set(others.values())


def test_further_windows_are_not_mixed_with_the_held_out_ones(tmp_path):
    with pytest.raises(ValueError, match="seed is 202, which made the held-out sets"):
        write_further(tmp_path, 202, 60)
    (tmp_path / "final").mkdir()
    with pytest.raises(ValueError, match="final is there already"):
        write_further(tmp_path, 5, 60)
