"""Windows through the engine: no speech left out, each recording in its language, each part in its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.engine.sparsify.level import Level
from pipeline.longform.placed import PlacedWindow, text_of
from pipeline.longform.transcribe import MAX_CUTS, transcribe_windows
from tests.fakes import RATE, FakeEngine, read_recording, result


def window(start_s=0.0, end_s=30.0, *, speech=None, recording=0):
    samples = np.full(round((end_s - start_s) * RATE), round(start_s) + 1, np.int16)
    return PlacedWindow(
        recording=recording, start_s=start_s, end_s=end_s, samples=samples, root_s=start_s,
        speech=((start_s, end_s),) if speech is None else speech,
    )  # fmt: skip


def transcribe(windows, engine, language="en", level=None):
    recordings = [read_recording(f"{n}.wav") for n in range(1 + max(w.recording for w in windows))]
    return transcribe_windows(windows, recordings, engine, language, level)


def lengths_s(engine):
    """Seconds of the windows of each call."""
    return [[len(samples) / RATE for samples in windows] for windows, _, _ in engine.calls]


def words(*starts_s):
    return tuple((start, start + 0.5) for start in starts_s)


def test_a_window_whose_words_leave_speech_out_is_transcribed_in_pieces():
    answers = iter([result("early end", spoken=words(*range(14))), result("first"), result("second")])
    engine = FakeEngine(answer=lambda samples, language: next(answers))
    found = transcribe([window(speech=((0.0, 14.0), (16.0, 30.0)))], engine)
    assert text_of(found) == "first second"
    assert [(done.window.start_s, done.window.end_s, done.result.fallback) for done in found] == [
        (0.0, 30.0, "cut"), (0.0, 15.0, None), (15.0, 30.0, None),
    ]  # fmt: skip


def test_a_hole_in_the_middle_is_found_under_a_word_that_lasts_too_long():
    stretched = ((0.0, 0.5), (1.0, 6.0), (6.0, 6.5), (7.0, 8.0))
    answers = iter([result("a hole", spoken=stretched)])
    engine = FakeEngine(answer=lambda samples, language: next(answers, result("right")))
    found = transcribe([window(0.0, 8.0)], engine)
    assert text_of(found) == "right right right"


def test_a_long_word_over_silence_is_no_hole():
    engine = FakeEngine(answer=lambda samples, language: result("all", spoken=((0.0, 6.0), (6.0, 7.0))))
    assert len(transcribe([window(0.0, 7.0, speech=((0.0, 1.2), (6.0, 7.0)))], engine)) == 1


def test_silence_is_never_left_out():
    samples = np.random.default_rng(0).integers(-3000, 3000, 20 * RATE).astype(np.int16)
    samples[3 * RATE :] = 0
    whole = replace(window(0.0, 20.0), samples=samples)  # as without voice activity
    engine = FakeEngine(answer=lambda samples, language: result("x", spoken=words(0.0, 1.0, 2.0)))
    assert len(transcribe([whole], engine)) == 1


@pytest.mark.parametrize(("spoken", "ends_s"), [
    (words(0.0, 1.0, 13.0, 14.0), [2.5, 12.25, 20.0]),  # what is left out begins and ends near pauses
    (words(0.0, 1.0), [2.5, 20.0]),  # to the end
    (words(12.5, 14.0, 16.0, 18.0), [12.25, 20.0]),  # from the beginning
    ((), [12.25, 20.0]),  # all of it: the longest pause in the middle half
])  # fmt: skip
def test_what_is_left_out_is_a_window_of_its_own_between_pauses(spoken, ends_s):
    speech = ((0.0, 2.0), (3.0, 12.0), (12.5, 14.6), (16.4, 18.4), (18.6, 20.0))
    answers = iter([result("x" if spoken else "", spoken=spoken)])
    engine = FakeEngine(answer=lambda samples, language: next(answers, result("y")))
    found = transcribe([window(0.0, 20.0, speech=speech)], engine)
    assert [done.window.end_s for done in found if not done.is_aside] == pytest.approx(ends_s)


def test_speech_without_a_pause_is_cut_where_it_is_quiet_nearby():
    samples = np.random.default_rng(0).integers(-3000, 3000, 20 * RATE).astype(np.int16)
    for quiet_s in (4, 12):
        samples[quiet_s * RATE : round((quiet_s + 0.4) * RATE)] = 0
    answers = iter([result("x", spoken=words(*range(12)))])
    engine = FakeEngine(answer=lambda samples, language: next(answers, result("y")))
    one = PlacedWindow(
        recording=0, start_s=5.0, end_s=25.0, samples=samples, speech=((5.0, 25.0),), root_s=5.0
    )
    transcribe([one], engine)
    assert lengths_s(engine)[1] == pytest.approx([12.2, 7.8], abs=0.2)


def test_a_window_is_cut_three_times_at_most():
    engine = FakeEngine(answer=lambda samples, language: result("x", spoken=words(0.0)))
    found = transcribe([window()], engine)
    assert [len(call) for call in lengths_s(engine)] == [1] + [2] * MAX_CUTS
    assert {done.window.root for done in found} == {(0, 0.0)}
    assert text_of(found) == " ".join("x" * (1 + MAX_CUTS))


def test_an_engine_that_serves_many_calls_is_given_each_window_in_one():
    windows = [window(30.0 * n, 30.0 * n + 30.0) for n in range(5)]
    lengths = {}
    for num_calls in (1, 3, 8):
        engine = FakeEngine(num_calls=num_calls, answer=lambda samples, _: result(f"w{samples[0] - 1}"))
        assert text_of(transcribe(windows, engine)) == "w0 w30 w60 w90 w120"
        lengths[num_calls] = sorted(len(call) for call, _, _ in engine.calls)
    assert lengths == {1: [5], 3: [1, 2, 2], 8: [1, 1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("no_speech_prob", "fallback", "num_windows"),
    [(0.9, None, 1), (0.1, None, 3), (0.1, "dense+unheard", 1), (0.1, "dense", 3)],
)
def test_an_empty_text_is_believed_where_the_model_or_the_sound_says_so(
    no_speech_prob, fallback, num_windows
):
    answers = iter([result("", no_speech_prob=no_speech_prob, fallback=fallback)])
    engine = FakeEngine(answer=lambda samples, language: next(answers, result("there")))
    assert len(transcribe([window()], engine)) == num_windows


@pytest.mark.parametrize(("level", "of_pieces"), [
    (Level(layer=1, sparsity=0.5, thin_ends=True), Level(layer=1, thin_ends=True)),
    (Level(layer=1, sparsity=0.5), Level(layer=1, sparsity=0.5)),
])  # fmt: skip
def test_pieces_lose_but_their_ends_where_the_job_looks_after_its_loss(level, of_pieces):
    asked = []

    class Noting(FakeEngine):
        def transcribe(self, windows, *, levels=None, **others):
            asked.append(levels)
            return super().transcribe(windows, **others)

    answers = iter([result("early", spoken=words(0.0))])
    transcribe([window()], Noting(answer=lambda samples, language: next(answers, result("x"))), level=level)
    assert asked == [level, of_pieces]


# --- languages ----------------------------------------------------------------------------------------


def speaks(heard):
    """An engine for windows that start at `heard`'s keys: their language, and how sure they are of it.

    In its own language a window's text is likely, in any other it is not.
    """

    def answer(samples, language):
        start_s = int(samples[0]) - 1
        own, probability = heard[start_s]
        asked = language or own
        return result(
            f"{asked}{start_s}", language=asked, language_probability=None if language else probability,
            avg_logprob=-0.2 if asked == own else -0.8,
        )  # fmt: skip

    return FakeEngine(answer=answer)


def windows_at(*starts_s):
    return [window(float(start), start + 30.0) for start in starts_s]


def texts(results):
    return [done.result.text for done in results if done.result.text]


def test_a_recording_is_in_the_language_of_its_windows_with_the_most_speech():
    engine = speaks(dict.fromkeys((0, 30, 60, 90, 120), ("de", 0.9)) | {0: ("fr", 0.9)})
    first, *rest = windows_at(0, 30, 60, 90, 120)
    jingle = window(0.0, 30.0, speech=((0.0, 2.0),))
    assert first.speech_s > jingle.speech_s
    found = transcribe([jingle, *rest], engine, "auto")
    assert [languages for _, languages, _ in engine.calls] == [[None, None, None], ["de", "de"]]
    assert texts(found) == ["de0", "de30", "de60", "de90", "de120"]


def test_a_window_that_is_unsure_does_not_decide():
    engine = speaks({0: ("cy", 0.3), 30: ("cy", 0.4), 60: ("en", 0.9), 90: ("en", 0.9)})
    transcribe(windows_at(0, 30, 60, 90), engine, "auto")
    assert engine.calls[-1][1] == ["en"]


@pytest.mark.parametrize(("heard", "language"), [(("cy", 0.3), "en"), (("cy", 0.9), "cy")])
def test_a_part_that_is_unsure_is_in_the_language_of_the_parts_before_it(heard, language):
    engine = speaks(dict.fromkeys((0, 30, 60, 90), heard))
    recordings = [read_recording() | {"part": 1, "language_guess": "en"}]
    transcribe_windows(windows_at(0, 30, 60, 90), recordings, engine, "auto")
    assert [languages for _, languages, _ in engine.calls if len(languages) == 1] == [[language]]


def test_a_window_that_was_asked_and_differs_keeps_its_language_where_that_is_surer():
    engine = speaks({0: ("fr", 0.9), 30: ("en", 0.9), 60: ("en", 0.9)})
    found = transcribe(windows_at(0, 30, 60), engine, "auto")
    assert texts(found) == ["fr0", "en30", "en60"]
    assert [done.result.fallback for done in found] == ["language", None, None, None]


def test_windows_after_a_change_follow_where_they_are_surer():
    heard = dict.fromkeys((0, 30, 60), ("en", 0.9)) | {90: ("ru", 0.9), 120: ("ru", 0.9), 150: ("en", 0.9)}
    engine = speaks(heard)
    in_guessed = engine.answer

    def fails_at_90(samples, language):
        """What the engine does of a guess: the first window that fails is decoded in its own language."""
        return in_guessed(samples, None if samples[0] == 91 else language)

    engine.answer = fails_at_90
    quiet = [window(float(s), s + 30.0, speech=((float(s), s + 5.0),)) for s in (90, 120, 150)]
    found = transcribe([*windows_at(0, 30, 60), *quiet], engine, "auto")
    assert texts(found) == ["en0", "en30", "en60", "ru90", "ru120", "en150"]


def test_each_window_in_its_own_language():
    engine = speaks({0: ("fr", 0.9), 30: ("en", 0.2), 60: ("ru", 0.9)})
    assert texts(transcribe(windows_at(0, 30, 60), engine, "each")) == ["fr0", "en30", "ru60"]
    assert [languages for _, languages, _ in engine.calls] == [[None, None, None]]


def test_pieces_are_asked_for_their_own_language_where_the_language_was_not_given():
    answers = iter([result("x", language="en", spoken=words(0.0)), result("y", language="fr"), result("z")])
    engine = FakeEngine(answer=lambda samples, language: next(answers, result("no", avg_logprob=-1.0)))
    assert texts(transcribe([window()], engine, "auto")) == ["y", "z"]
    assert [languages for _, languages, _ in engine.calls] == [[None], [None, None], ["en"]]


def test_pieces_are_in_the_language_that_was_given():
    answers = iter([result("x", spoken=words(0.0))])
    engine = FakeEngine(answer=lambda samples, language: next(answers, result("y")))
    transcribe([window()], engine, "de")
    assert [languages for _, languages, _ in engine.calls] == [["de"], ["de", "de"]]
