"""Recordings in memory: any rate, shape and length, in order, and at their own times."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from pipeline.recogniser import Recogniser

SPEECH = "pipeline/demo/speech"


@pytest.fixture(scope="module")
def recogniser():
    from pipeline.engine import Engine, EngineOptions

    return Recogniser(Engine.load("demo", options=EngineOptions(word_timestamps=True)))


@pytest.fixture(scope="module")
def kitchen():
    samples, rate = soundfile.read(f"{SPEECH}/kitchen.wav", dtype="int16")
    assert rate == 16_000
    return samples[: rate * 7 // 2]  # one sentence


def test_recordings_of_any_kind_have_the_same_text_in_their_order(recogniser, kitchen):
    telephone = soundfile.read(f"{SPEECH}/telephone.wav", dtype="int16")
    single = kitchen.astype(np.float32) / 32768
    stereo = np.stack([single, single], 1)
    fine = np.repeat(single, 3)[:, None]
    found = recogniser.transcribe([(kitchen, 16_000), telephone, (stereo, 16_000), (fine[:, 0], 48_000)])
    assert found[0].text.startswith("she asked the tailor about the scissor and the butterfly")
    assert found[1].text.startswith("both the lion and the driver")
    assert found[2].text == found[0].text == found[3].text
    assert found[0].language == "en"


def test_segments_and_words_lie_at_their_times_in_a_long_recording(recogniser, kitchen):
    silence = np.zeros(40 * 16_000, np.int16)
    (alone,) = recogniser.transcribe([(kitchen, 16_000)])
    (after,) = recogniser.transcribe([(np.concatenate([kitchen, silence, kitchen]), 16_000)])
    num, offset_s = len(alone.segments), len(kitchen) / 16_000 + 40
    assert after.text == f"{alone.text} {alone.text}"
    for before, behind in zip(alone.segments, after.segments[num:], strict=True):
        assert behind.start_s == pytest.approx(before.start_s + offset_s, abs=0.3)
        assert behind.words[0].start_s == pytest.approx(before.words[0].start_s + offset_s, abs=0.3)


def test_silence_has_no_text_and_a_language_that_is_given_is_taken(recogniser, kitchen):
    silent, spoken = recogniser.transcribe(
        [(np.zeros(16_000, np.float32), 16_000), (kitchen, 16_000)], languages=[None, "es"]
    )
    assert (silent.text, silent.language, silent.segments) == ("", None, ())
    assert spoken.language == "es"
    assert recogniser.transcribe([]) == []
    nothing = [(np.empty(0, np.float32), 16_000), (np.empty((0, 2), np.int16), 44_100)]
    assert [found.text for found in recogniser.transcribe(nothing)] == ["", ""]


def test_samples_of_another_shape_are_refused(recogniser):
    with pytest.raises(ValueError, match=r"shape \(1, 2, 3\), float64: must be \[time\] or"):
        recogniser.transcribe([(np.zeros((1, 2, 3)), 16_000)])
