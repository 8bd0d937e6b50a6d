"""Speech, scenes and held-out sets; skipped where libespeak-ng is missing."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.demo.batches import IGNORED, LAYOUTS, Batches, Recipe
from pipeline.demo.features import draw_warp, log_mel
from pipeline.demo.heldout import write_further
from pipeline.demo.labels import FRAMES_PER_S, Labeller
from pipeline.demo.noise import add_echo, add_noise, coloured_noise, degrade
from pipeline.demo.scenes import HELD_OUT_VARIANTS, TRAIN_VARIANTS, Script, compose
from pipeline.demo.speech import SAMPLE_RATE, SpeechUnavailableError, Voice, require_speech, synthesize
from pipeline.demo.tokens import NUM_TIMESTAMPS, train_tokenizer

try:
    require_speech()
    MISSING = ""
except SpeechUnavailableError as error:
    MISSING = str(error)

ROOT = Path(__file__).parents[1]
needs_speech = pytest.mark.skipif(bool(MISSING), reason=MISSING or "libespeak-ng is there")

_FINGERPRINT = """
import hashlib, random
from pipeline.demo.scenes import Script, compose
scene = compose(random.Random(3), Script(language="es", layout="packed", duration_s=5, split="dev"))
print(hashlib.sha256(scene.samples.tobytes()).hexdigest(), scene.text)
"""


@pytest.fixture(scope="module")
def labeller() -> Labeller:
    return Labeller(train_tokenizer())


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
@pytest.mark.parametrize("layout", LAYOUTS)
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


@needs_speech
def test_a_transcript_with_timestamps_decodes_to_text_and_times(labeller: Labeller) -> None:
    scene = compose(random.Random(2), Script(language="en", layout="packed", duration_s=10, split="dev"))
    targets = labeller.transcript(scene, shifts=[100] * len(scene.sentences), timestamps=True)
    ids = labeller.ids
    text = labeller.tokenizer.decode([target.token for target in targets if target.token < ids.end])
    marks = [
        (target.token - ids.first_timestamp) / FRAMES_PER_S
        for target in targets
        if target.token >= ids.first_timestamp
    ]
    edges = [at + 2 for placed in scene.sentences for at in (placed.start_s, placed.end_s)]
    assert text.strip() == scene.text
    assert marks == pytest.approx(edges, abs=0.011)
    assert targets[-1].token == ids.end


@needs_speech
def test_frame_labels_say_no_speech_exactly_outside_sentences(labeller: Labeller) -> None:
    scene = compose(random.Random(5), Script(language="es", layout="spread", duration_s=10, split="dev"))
    tokens, phonemes = labeller.frames(scene)
    first = scene.sentences[0]
    inside = slice(int(first.start_s * FRAMES_PER_S) + 1, int(first.end_s * FRAMES_PER_S))
    assert len(tokens) == len(phonemes) == 500
    assert (tokens[inside] != labeller.ids.no_speech).all()
    assert (tokens[: int(first.start_s * FRAMES_PER_S)] == labeller.ids.no_speech).all()


@needs_speech
def test_the_start_of_a_window_without_speech_predicts_no_speech(labeller: Labeller) -> None:
    recipe = Recipe(window_s=5, batch_size=4, shares=(0, 0, 0, 1))
    batch = Batches(labeller, (recipe,), seed=0)[0]
    starts = batch.targets[batch.tokens == labeller.ids.start]
    assert starts.tolist() == [labeller.ids.no_speech] * 4
    assert batch.mel.shape == (4, 80, 500)
    assert ((batch.targets == IGNORED) | (batch.targets >= 0)).all()


def test_the_tokeniser_has_whispers_order_of_ids(labeller: Labeller) -> None:
    ids = labeller.ids
    assert ids.start == ids.end + 1
    assert ids.no_timestamps == ids.no_speech + 1
    assert ids.first_timestamp == ids.no_timestamps + 1
    assert ids.size == ids.first_timestamp + NUM_TIMESTAMPS
    assert labeller.tokenizer.get_decoder_prompt_ids(language="es", task="transcribe") == [
        (1, ids.languages["es"]),
        (2, ids.transcribe),
        (3, ids.no_timestamps),
    ]


def test_features_equal_those_of_transformers() -> None:
    import torch
    from transformers import WhisperFeatureExtractor

    samples = np.random.default_rng(0).normal(0, 0.1, 30 * SAMPLE_RATE).astype(np.float32)
    theirs = WhisperFeatureExtractor()(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    ours = log_mel(torch.from_numpy(samples)[None])
    assert (ours - theirs).abs().max() < 1e-5


def test_a_warp_moves_a_formant_by_at_most_what_it_says() -> None:
    import torch

    time_s = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    tone = torch.sin(2 * torch.pi * 1500 * time_s)[None]
    rng = random.Random(1)
    moved = set()
    for _ in range(40):
        bins = draw_warp(rng)[None]
        assert (bins.diff() > 0).all()
        assert bins[0, [0, -1]].tolist() == [0.0, 200.0]
        peak = int(log_mel(tone, bins)[0, :, 50].argmax())
        assert abs(peak - int(log_mel(tone)[0, :, 50].argmax())) <= 6
        moved.add(peak)
    assert len(moved) > 3


def test_no_warp_leaves_the_features_as_they_are() -> None:
    import torch

    samples = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 32_000)).astype(np.float32))
    assert torch.equal(log_mel(samples), log_mel(samples, torch.arange(201.0)[None]))


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
def test_further_windows_are_the_same_bytes_for_a_seed_and_others_for_another(tmp_path):
    def written(name, seed):
        rows = write_further(tmp_path / name, seed, 60)
        files = (tmp_path / name).rglob("*.*")
        return rows, {
            str(path.relative_to(tmp_path / name)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    rows, files = written("one", 5)
    assert {row["set"]: row["num_windows"] for row in rows}["no-speech"] == 100
    assert all(60 <= row["num_words"] < 200 for row in rows if row["set"] not in ("names", "no-speech"))
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


@pytest.mark.parametrize(("options", "message"), [
    (["--seed", "5", "--output", "out"], "--seed: only with --make-eval"),
    (["--make-eval", "out", "--words", "60"], "--words: only with --seed"),
    (["--make-eval", "out", "--seed", "101"], "--seed: seed is 101"),
])  # fmt: skip
def test_a_seed_or_words_without_what_they_belong_to_are_wrong_use(options, message, tmp_path):
    command = [sys.executable, "-m", "jobs.train_demo", *options]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert message in done.stderr
