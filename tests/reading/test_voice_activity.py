"""Speech is found where it is, silence costs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.reading import silero, voice_activity
from pipeline.reading.voice_activity import VoiceActivity, spans_of
from tests.reading.made_audio import RATE, vowels

FRAME_S = 512 / RATE


@pytest.fixture(scope="module")
def detector():
    return VoiceActivity()


def int16(samples):
    return np.round(samples * 32767).astype(np.int16)


def test_silence_has_no_speech(detector):
    assert detector.speech_spans([np.zeros(600 * RATE, np.int16)]) == [[]]
    assert detector.speech_spans([np.zeros(0, np.int16), np.zeros(5, np.int16)]) == [[], []]


def test_faint_noise_has_no_speech(detector):
    noise = np.random.default_rng(0).integers(-20, 20, 20 * RATE).astype(np.int16)
    assert detector.speech_spans([noise]) == [[]]


def test_a_voice_between_silences_is_found_where_it_is(detector):
    samples = int16(np.concatenate([np.zeros(5 * RATE), vowels(3, seed=1), np.zeros(5 * RATE)]))
    (spans,) = detector.speech_spans([samples])
    assert spans
    assert 4.5 <= spans[0][0] <= 5.3
    assert 6.5 <= spans[-1][1] <= 8.5


def test_spans_are_ascending_apart_and_inside_the_recording(detector):
    parts = [piece for seed in range(6) for piece in (vowels(2, seed=seed), np.zeros(RATE // 2))]
    samples = int16(np.concatenate(parts))
    (spans,) = detector.speech_spans([samples])
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    assert len(set(edges)) == len(edges)
    assert edges[0] >= 0
    assert edges[-1] <= len(samples) / RATE


def test_the_same_samples_give_the_same_spans(detector):
    samples = int16(vowels(5, seed=3))
    assert detector.speech_spans([samples]) == VoiceActivity().speech_spans([samples])


def test_a_recording_is_heard_the_same_in_any_company(detector, monkeypatch):
    monkeypatch.setattr(silero, "SEGMENT_FRAMES", 60)
    monkeypatch.setattr(silero, "RUN_UP_FRAMES", 20)
    monkeypatch.setattr(silero, "GROUP", 4)
    recordings = [int16(vowels(seconds, seed=i)) for i, seconds in enumerate((1, 5, 3, 0.2, 7))]
    together = detector.probabilities(recordings)
    for samples, found in zip(recordings, together, strict=True):
        assert len(found) == -(-len(samples) // 512)
        assert np.allclose(detector.probabilities([samples])[0], found, atol=1e-5)


def test_the_network_says_what_its_own_runtime_says(detector):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(silero._model_file()))
    samples = int16(vowels(15, seed=7))
    frames = voice_activity._frames(samples) * np.float32(1 / 32768)
    state = np.zeros((1, 1, 128), np.float32)
    expected = session.run(["speech_probs"], {"input": frames, "h": state, "c": state})[0].reshape(-1)
    found = detector.probabilities([samples])[0]
    assert np.abs(found - expected).max() < 1e-4
    assert expected.max() > 0.9


def test_segments_that_are_heard_from_the_start_say_what_an_endless_run_says(detector, monkeypatch):
    samples = int16(np.concatenate([vowels(2, seed=seed) for seed in range(6)]))
    endless = detector.probabilities([samples])[0]
    monkeypatch.setattr(silero, "SEGMENT_FRAMES", 100)
    monkeypatch.setattr(silero, "RUN_UP_FRAMES", 1000)
    assert np.allclose(detector.probabilities([samples])[0], endless, atol=1e-4)


def probabilities(*runs):
    return np.concatenate([np.full(round(seconds / FRAME_S), value) for value, seconds in runs])


def test_a_click_is_no_speech():
    assert spans_of(probabilities((0.0, 1), (0.9, 0.1), (0.0, 1)), 2.1) == []


def test_a_short_dip_does_not_end_speech():
    spans = spans_of(probabilities((0.0, 1), (0.9, 1), (0.1, 0.07), (0.9, 1), (0.0, 1)), 4.1)
    assert len(spans) == 1


def test_a_pause_between_the_thresholds_does_not_end_speech():
    assert len(spans_of(probabilities((0.9, 1), (0.4, 2), (0.9, 1)), 4.0)) == 1


def test_speech_is_padded_and_clipped_to_the_recording():
    ((start, end),) = spans_of(probabilities((0.9, 1), (0.0, 1)), 2.0)
    assert start == 0.0
    assert end == pytest.approx(1.2, abs=0.05)
