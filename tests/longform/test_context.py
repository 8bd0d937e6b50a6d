"""What was said before a window, as it is put before it."""

from __future__ import annotations

import threading

import pytest

from pipeline.longform.transcribe import transcribe_windows
from tests.fakes import RATE, FakeEngine, read_recording, result
from tests.longform.test_transcribe import transcribe, window, words


def name(samples, _language):
    """Each window says when it begins."""
    return result(f"w{samples[0] - 1}")


class Noting(FakeEngine):
    """Notes the prompts of windows by their beginning and length, in seconds."""

    def transcribe(self, windows, *, prompts=None, **others):
        if not hasattr(self, "noted"):
            self.noted = {}
        for samples, prompt in zip(windows, prompts or [None] * len(windows), strict=True):
            self.noted.setdefault((int(samples[0]) - 1, len(samples) // RATE), []).append(prompt)
        return super().transcribe(windows, prompts=prompts, **others)


def test_each_window_is_given_what_its_recording_said_before():
    engine = Noting(answer=name, conditions_on_text=True)
    windows = [window(60.0, 90.0), window(0.0, 30.0), window(30.0, 60.0), window(7.0, 20.0, recording=1)]
    found = transcribe(windows, engine)
    assert [done.result.text for done in found] == ["w0", "w30", "w60", "w7"]
    noted = {(0, 30): [None], (7, 13): [None], (30, 30): ["w0"], (60, 30): ["w0 w30"]}
    assert engine.noted == noted


def test_nothing_is_put_before_a_window_unless_it_is_asked_for():
    engine = Noting(answer=name)
    transcribe([window(0.0, 30.0), window(30.0, 60.0)], engine)
    assert engine.noted == {(0, 30): [None], (30, 30): [None]}


@pytest.mark.parametrize(("temperature", "prompt"), [(0.4, "a name w0 w30"), (0.6, "w30")])
def test_text_that_was_drawn_at_a_high_temperature_ends_the_context(temperature, prompt):
    def answer(samples, language):
        temperatures = {0: temperature}
        return result(f"w{samples[0] - 1}", temperature=temperatures.get(samples[0] - 1, 0.0))

    engine = Noting(answer=answer, conditions_on_text=True)
    windows = [window(start, start + 30.0) for start in (0.0, 30.0, 60.0)]
    transcribe_windows(windows, [read_recording("a.wav") | {"prompt": "a name"}], engine, "en")
    assert engine.noted[0, 30] == ["a name"]
    assert engine.noted[60, 30] == [prompt]


def test_pieces_are_given_what_was_said_before_them_and_not_what_they_replace():
    def answer(samples, language):
        is_early_end = samples[0] == 31 and len(samples) == 30 * 16_000
        return result("early end", spoken=words(*range(14))) if is_early_end else name(samples, language)

    engine = Noting(answer=answer, conditions_on_text=True)
    transcribe([window(0.0, 30.0), window(30.0, 60.0, speech=((30.0, 44.0), (46.0, 60.0)))], engine)
    assert engine.noted == {(0, 30): [None], (30, 30): ["w0"], (30, 15): ["w0", "w0 w30"]}


def test_recordings_are_decoded_side_by_side():
    together = threading.Barrier(3, timeout=30)

    def answer(samples, language):
        together.wait()
        return name(samples, language)

    engine = Noting(answer=answer, conditions_on_text=True)
    found = transcribe([window(n, n + 20.0, recording=n) for n in range(3)], engine)
    assert [done.result.text for done in found] == ["w0", "w1", "w2"]


def test_what_the_engine_raises_is_raised():
    def answer(samples, language):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        transcribe([window()], FakeEngine(answer=answer, conditions_on_text=True))
