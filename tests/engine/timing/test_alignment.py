"""Word times of the whole engine: on random models for the rules, on the bundled one for the truth."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from pipeline.demo import SPEECH
from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding.segments import Span, split_spans
from pipeline.engine.model.snapshot import DEMO_FOLDER, resolve
from pipeline.engine.results import Word
from pipeline.engine.sparsify.level import Level
from pipeline.engine.sparsify.scoring_layer import encode_sparse
from pipeline.engine.timing.alignment import Aligner, Spoken, fit, place_words
from pipeline.engine.timing.words import said_in
from tests.engine.conftest import MINI, make_speechlike
from tests.synthetic.scenes import Script, compose
from tests.synthetic.speech import SpeechUnavailableError, require_speech

WINDOWS = [make_speechlike(seconds, seed) for seed, seconds in enumerate((30.0, 12.0, 4.0))]


@pytest.fixture(scope="module")
def load(model_folder):
    """A function from options to a random engine that decodes 24 tokens."""

    def loaded(**options):
        chosen = EngineOptions(max_new_tokens=24, batch_size=2, **options)
        return Engine.load(model_folder(MINI), options=chosen)

    return loaded


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_words_spell_their_segments_and_go_forward_inside_the_window(load, sparsity):
    for samples, result in zip(
        WINDOWS, load(word_timestamps=True, sparsity=sparsity).transcribe(WINDOWS), strict=True
    ):
        words = [word for segment in result.segments for word in segment.words]
        edges = [time for word in words for time in (word.start_s, word.end_s)]
        assert edges == sorted(edges)
        assert all(0 <= time <= len(samples) / 16000 for time in edges)
        assert all(0 <= word.probability <= 1 for word in words)
        assert result.spoken == tuple(span for word in words for span in said_in(word))
        for segment in result.segments:
            assert (segment.start_s, segment.end_s) == (segment.words[0].start_s, segment.words[-1].end_s)
            assert "".join(word.word for word in segment.words).strip() == segment.text


def test_asking_for_words_changes_nothing_else(load):
    plain, timed = load().transcribe(WINDOWS), load(word_timestamps=True).transcribe(WINDOWS)
    assert [result.text for result in timed] == [result.text for result in plain]
    assert all(segment.words is None for result in plain for segment in result.segments)
    assert all(timed_one.device_s > 0 for timed_one in timed)


def test_words_do_not_depend_on_company(load):
    engine = load(word_timestamps=True, sparsity=0.5)
    together = engine.transcribe(WINDOWS)
    alone = [engine.transcribe([samples])[0] for samples in WINDOWS]
    assert [[s.words and [w.start_s for w in s.words] for s in r.segments] for r in together] == [
        [s.words and [w.start_s for w in s.words] for s in r.segments] for r in alone
    ]


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_what_was_asked_as_a_text_was_decoded_times_it_as_another_pass_does(monkeypatch, sparsity):
    """More windows than slots, which are refilled while others go on."""
    speech = np.concatenate(
        [soundfile.read(SPEECH / name, dtype="float32")[0] for name in ("kitchen.wav", "station.flac")]
    )
    windows = [speech[first * 16000 : (first + 12 + first % 5) * 16000] for first in range(0, 30, 4)]
    options = EngineOptions(
        timestamps="alignment", batch_size=3, sparsity=sparsity, selector="stride", word_timestamps=True
    )
    passed = Engine.load("demo", options=options).transcribe(windows, languages=["en"] * len(windows))
    noting = Engine.load("demo", options=replace(options, word_timestamps=False))
    monkeypatch.setattr(Aligner, "_align_together", None)
    noted = noting.transcribe(windows, languages=["en"] * len(windows))
    assert len({one.text for one in noted}) == len(windows)
    assert [one.spoken for one in noted] == [one.spoken for one in passed]
    assert [[(s.start_s, s.end_s) for s in one.segments] for one in noted] == [
        [(s.start_s, s.end_s) for s in one.segments] for one in passed
    ]


def test_silence_has_no_words(load):
    (result,) = load(word_timestamps=True).transcribe([np.zeros(0, np.float32)])
    assert result.segments == ()


def test_tokens_begin_where_transformers_has_them():
    """It says of each token when the next one begins; the first, whose row it leaves out, is not compared."""
    samples = np.zeros(30 * 16000, np.float32)
    speech, _ = soundfile.read(DEMO_FOLDER.parent / "speech" / "kitchen.wav", dtype="float32")
    samples[: len(speech)] = speech
    peer = WhisperForConditionalGeneration.from_pretrained(
        DEMO_FOLDER, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    features = WhisperFeatureExtractor.from_pretrained(DEMO_FOLDER)(
        samples, sampling_rate=16000, return_tensors="pt"
    )
    theirs = peer.generate(
        features.input_features, language="en", task="transcribe", return_timestamps=True,
        return_token_timestamps=True, force_unique_generate_call=True, num_beams=1, do_sample=False,
        max_new_tokens=40, return_dict_in_generate=True,
    )  # fmt: skip
    engine = Engine.load("demo", options=EngineOptions(max_new_tokens=40))
    model = engine._model
    prompt = tuple(model.vocabulary.start_sequence("en", "transcribe", timestamps=True))
    tokens = tuple(token for token in theirs["sequences"][0].tolist()[3:] if token != model.vocabulary.end)
    with torch.inference_mode():
        hidden, kept = encode(model, samples, 1500)
        spoken = Spoken(hidden=hidden, kept=kept, prompt=prompt, tokens=tokens, num_samples=len(samples))
        (times,) = Aligner(model, resolve("demo")).align([spoken])
    expected = theirs["token_timestamps"][0].tolist()[3:]
    assert len(tokens) > 20
    assert times.starts_s[2 : len(tokens)] == pytest.approx(expected[1 : len(tokens) - 1], abs=0.021)


@pytest.fixture(scope="module")
def scenes():
    """Scenes of the bundled model's language, whose word times are known."""
    try:
        require_speech()
    except SpeechUnavailableError as error:
        pytest.skip(str(error))
    scripts = [
        Script(language=language, layout=layout, duration_s=30.0, split="dev")
        for language, layout in (("en", "packed"), ("es", "packed"), ("en", "spread"))
    ]
    return [compose(random.Random(7), script) for script in scripts]


def true_tokens(scene, vocabulary):
    """What a perfect decoder would write of a scene, and the true starts of its words."""
    tokens, starts_s = [], []
    for placed in scene.sentences:
        opening, closing = (
            vocabulary.first_timestamp + round(time * 50) for time in (placed.start_s, placed.end_s)
        )
        text = vocabulary.tokenizer.encode(f" {placed.utterance.text}", add_special_tokens=False).ids
        tokens += [opening, *text, closing]
        starts_s += [placed.start_s + start for start in placed.utterance.word_starts_s]
    return tokens, starts_s


def encode(model, samples, k):
    """Encoder output of one window [k, dim], and its positions."""
    mel = model.features([samples])
    if k == model.shape.source_positions:
        return model.encoder(mel)[0], None
    level = Level(layer=2, sparsity=1 - k / model.shape.source_positions)
    hidden, kept = encode_sparse(model.encoder, mel, level=level, seeds=[0])
    return hidden[0], kept[0]


@pytest.mark.parametrize("k", [1500, 750])
@torch.inference_mode()
def test_words_of_the_true_text_are_where_they_were_said(scenes, k):
    engine = Engine.load("demo", options=EngineOptions(word_timestamps=True))
    model, errors_s = engine._model, []
    aligner = Aligner(model, resolve("demo"))
    for scene in scenes:
        tokens, starts_s = true_tokens(scene, model.vocabulary)
        hidden, kept = encode(model, 0.5 * scene.samples, k)
        prompt = tuple(model.vocabulary.start_sequence(scene.language, "transcribe", timestamps=True))
        spoken = Spoken(
            hidden=hidden, kept=kept, prompt=prompt, tokens=tuple(tokens), num_samples=len(scene.samples)
        )
        (times,) = aligner.align([spoken])
        spans = split_spans(tokens, model.vocabulary, 30.0)
        placed = place_words(spans, tokens, times, model, scene.language)
        words = [word for _, own in placed for word in own]
        assert [word.word.strip() for word in words] == scene.text.split()
        errors_s += [abs(word.start_s - start) for word, start in zip(words, starts_s, strict=True)]
    assert len(errors_s) > 100
    assert np.median(errors_s) <= 0.1


def words_at(*times):
    return [Word(start_s=start, end_s=end, word=" w", probability=0.5) for start, end in times]


@pytest.mark.parametrize(
    ("times", "start_s", "end_s"),
    [
        ([(1.2, 1.4), (1.4, 2.3)], 1.2, 2.3),  # the words know better
        ([(0.1, 1.4), (1.4, 2.9)], 1.0, 2.0),  # drawn out over pauses
        ([(0.0, 0.2), (2.2, 2.9)], 0.0, 2.9),  # outside of the timestamps, they are where they are
        ([(0.1, 2.9)], 1.0, 2.0),
    ],
)
def test_a_segment_begins_with_its_first_word_and_ends_with_its_last(times, start_s, end_s):
    span, words = fit(Span(start_s=1.0, end_s=2.0, tokens=(1, 2)), words_at(*times))
    assert (span.start_s, span.end_s) == (words[0].start_s, words[-1].end_s) == (start_s, end_s)
    assert all(word.start_s <= word.end_s for word in words)
