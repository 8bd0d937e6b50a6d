"""From a decoded shard to transcript rows: nothing dropped, times of the recording, errors apart."""

from dataclasses import replace

import pytest

from pipeline.dataflow.transcription import transcribe_shard
from pipeline.engine import Word
from pipeline.schema import SHARD_RESULT
from tests.fakes import FakeEngine, audio_table, plan_row, read_recording, result

WHOLE = [(0, 10.0, 40.0, [(10.0, 40.0)])]


def run(recordings, windows, engine, language="en"):
    table = transcribe_shard(audio_table(recordings, windows), engine, language=language)
    assert table.schema.equals(SHARD_RESULT)
    return table.to_pylist()[0]


def test_segment_times_are_those_of_the_recording(fake_engine):
    row = run([read_recording()], WHOLE, fake_engine)
    assert [(s["start_s"], s["end_s"]) for s in row["transcripts"][0]["segments"]] == [(10.5, 12.0)]


def test_word_times_are_those_of_the_recording():
    heard = result("hi")
    words = (Word(start_s=0.5, end_s=1.25, word=" hi", probability=0.5),)
    timed = replace(heard, segments=(replace(heard.segments[0], words=words),))
    row = run([read_recording()], WHOLE, FakeEngine(answer=lambda samples, language: timed))
    assert row["transcripts"][0]["segments"][0]["words"] == [
        {"start_s": 10.5, "end_s": 11.25, "word": " hi", "probability": 0.5}
    ]


def test_a_word_behind_a_pause_begins_where_speech_does():
    heard = result("hi there you", end_s=9.0)
    times = ((0.5, 2.4), (2.4, 7.0), (7.0, 9.0))
    words = tuple(Word(start_s=a, end_s=b, word=" w", probability=0.5) for a, b in times)
    timed = replace(heard, segments=(replace(heard.segments[0], start_s=2.4, end_s=9.0, words=words),))
    windows = [(0, 10.0, 20.0, [(10.5, 12.5), (16.5, 19.0)])]
    row = run([read_recording()], windows, FakeEngine(answer=lambda samples, language: timed))
    segment = row["transcripts"][0]["segments"][0]
    assert [(word["start_s"], word["end_s"]) for word in segment["words"]] == [
        (10.5, 12.4),
        (16.5, 17.0),
        (17.0, 19.0),
    ]
    assert (segment["start_s"], segment["end_s"]) == (16.5, 19.0)


def test_a_recording_without_speech_is_ok_and_empty(fake_engine):
    row = run([read_recording()], [], fake_engine)["transcripts"][0]
    assert (row["status"], row["text"], row["segments"], row["language"]) == ("ok", "", [], None)
    assert fake_engine.calls == []


def test_a_failed_recording_has_no_text_but_a_reason(fake_engine):
    failed = read_recording("b.wav", error_type="corrupt", error_message="b.wav: broken", duration_s=None)
    row = run([read_recording(), failed], WHOLE, fake_engine)["transcripts"][1]
    assert (row["status"], row["text"], row["segments"]) == ("failed", None, None)
    assert row["error_message"] == "b.wav: broken"


def test_what_a_window_that_was_cut_took_counts_and_its_text_does_not():
    answers = iter([result("all of it", spoken=((0.5, 1.0),)), result("first"), result("second")])
    engine = FakeEngine(answer=lambda samples, language: next(answers))
    row = run([read_recording()], WHOLE, engine)
    assert row["transcripts"][0]["text"] == "first second"
    measures = row["measures"]
    assert (measures["num_windows"], measures["num_fallback"], measures["device_s"]) == (3, 1, 0.75)


def test_a_row_has_the_language_of_its_recording_and_how_sure_it_was():
    engine = FakeEngine(answer=lambda samples, language: result(language=language or "de"))
    row = run([read_recording()], WHOLE, engine, language="auto")["transcripts"][0]
    assert (row["language"], row["language_probability"]) == ("de", 0.9)
    assert row["languages"] == [{"language": "de", "speech_s": 30.0}]


@pytest.mark.parametrize(
    ("probability", "before", "guess"), [(0.9, None, "de"), (0.3, None, None), (0.3, "fr", "fr")]
)
def test_the_parts_to_come_are_told_the_language_that_a_part_is_sure_of(probability, before, guess):
    engine = FakeEngine(answer=lambda *_: result(language="de", language_probability=probability))
    overflow = [plan_row(part=1, language_guess=before), plan_row("b.wav", language_guess=None)]
    shard = audio_table([read_recording()], WHOLE, overflow=overflow)
    (row,) = transcribe_shard(shard, engine, language="auto").to_pylist()
    assert [one["language_guess"] for one in row["overflow"]] == [guess, None]


@pytest.mark.parametrize("language", ["auto", "en"])
def test_a_recordings_own_language_and_prompt_are_used_for_its_windows_alone(language):
    engine = FakeEngine(answer=lambda samples, language: result(language=language or "de"))
    windows = [(n, 30.0 * n, 30.0 * n + 10, [(30.0 * n, 30.0 * n + 10)]) for n in (0, 1)]
    recordings = [read_recording(language="fr", prompt="Bonjour"), read_recording("b.wav")]
    row = run(recordings, windows, engine, language=language)
    assert [t["language"] for t in row["transcripts"]] == ["fr", "de" if language == "auto" else "en"]
    assert sorted(engine.prompts, key=str) == ["Bonjour", None]


def test_a_row_says_how_much_of_its_recording_is_in_each_language():
    heard = (("fr", 0.7), ("en", 0.9), ("en", 0.8))
    answers = iter([result(language=code, language_probability=p) for code, p in heard])
    engine = FakeEngine(answer=lambda samples, language: next(answers))
    windows = [(0, n * 10.0, n * 10.0 + 10.0, [(n * 10.0, n * 10.0 + 6.0)]) for n in range(3)]
    row = run([read_recording()], windows, engine, language="each")["transcripts"][0]
    assert (row["language"], row["language_probability"]) == ("en", 0.9)
    assert row["languages"] == [{"language": "en", "speech_s": 12.0}, {"language": "fr", "speech_s": 6.0}]
    assert [segment["language"] for segment in row["segments"]] == ["fr", "en", "en"]


def test_seeds_depend_on_recording_and_offset_alone():
    both, alone = FakeEngine(), FakeEngine()
    windows = [(0, 0.0, 5.0, [(0.0, 5.0)]), (1, 0.0, 5.0, [(0.0, 5.0)])]
    run([read_recording(), read_recording("b.wav")], windows, both)
    run([read_recording("b.wav")], windows[:1], alone)
    seeds = both.calls[0][2]
    assert seeds[0] != seeds[1]
    assert alone.calls[0][2] == [seeds[1]]


def test_measures_are_the_sums_over_the_windows():
    engine = FakeEngine(answer=lambda samples, language: result(kept_positions=750, fallback="dense"))
    windows = [(0, 0.0, 5.0, [(0.0, 5.0)]), (0, 5.0, 9.0, [(5.0, 9.0)])]
    measures = run([read_recording()], windows, engine)["measures"]
    assert measures["device_s"] == pytest.approx(0.5)
    assert (measures["kept_positions"], measures["sparsity_mean"], measures["num_fallback"]) == (1500, 0.5, 2)


def test_samples_reach_the_engine_without_a_copy(fake_engine):
    table = audio_table([read_recording()], WHOLE)
    transcribe_shard(table, fake_engine, language="en")
    seen = fake_engine.calls[0][0][0]
    assert not seen.flags.owndata
    assert seen.ctypes.data == table.column("samples").chunk(0).values.buffers()[1].address
