"""From a decoded shard to transcript rows: nothing dropped, times of the recording, errors apart."""

from dataclasses import replace

import pytest

from pipeline.adaptive.shadow import ShardLevel
from pipeline.dataflow.transcription import transcribe_shard
from pipeline.engine import Word
from pipeline.engine.sparsify.level import Level
from pipeline.longform import MAX_RESUMES
from pipeline.schema import SHARD_RESULT
from tests.fakes import RATE, FakeEngine, audio_table, read_recording, result

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


def test_a_recording_without_speech_is_ok_and_empty(fake_engine):
    row = run([read_recording()], [], fake_engine)["transcripts"][0]
    assert (row["status"], row["text"], row["segments"], row["language"]) == ("ok", "", [], None)
    assert fake_engine.calls == []


def test_a_failed_recording_has_no_text_but_a_reason(fake_engine):
    failed = read_recording("b.wav", error_type="corrupt", error_message="b.wav: broken", duration_s=None)
    row = run([read_recording(), failed], WHOLE, fake_engine)["transcripts"][1]
    assert (row["status"], row["text"], row["segments"]) == ("failed", None, None)
    assert row["error_message"] == "b.wav: broken"


def test_the_tail_after_an_early_end_is_transcribed_too():
    answers = iter([result("first", resume_s=20.0), result("second")])
    engine = FakeEngine(answer=lambda samples, language: next(answers))
    row = run([read_recording()], WHOLE, engine)
    assert row["transcripts"][0]["text"] == "first second"
    assert [len(windows[0]) for windows, _, _ in engine.calls] == [30 * RATE, 10 * RATE]
    assert row["transcripts"][0]["segments"][1]["start_s"] == 30.5
    assert row["measures"]["num_windows"] == 2


@pytest.mark.parametrize(("level", "of_tail"), [
    (Level(layer=1, share=1.0), Level(layer=1, sparsity=0.0)),
    (Level(layer=1, sparsity=0.5), Level(layer=1, sparsity=0.5)),
])  # fmt: skip
def test_a_tail_is_dense_where_the_job_looks_after_its_loss(level, of_tail):
    asked = []

    class Noting(FakeEngine):
        def transcribe(self, windows, *, levels=None, **others):
            asked.append(levels)
            return super().transcribe(windows, **others)

    answers = iter([result("first", resume_s=20.0), result("second")])
    engine = Noting(answer=lambda samples, language: next(answers))
    chosen = ShardLevel(rung=1, level=level, share=0.0, salt="plan")
    transcribe_shard(audio_table([read_recording()], WHOLE), engine, language="en", sparsity=chosen)
    assert asked == [level, of_tail]


def test_a_tail_of_silence_is_not_transcribed():
    engine = FakeEngine(answer=lambda samples, language: result(resume_s=20.0))
    run([read_recording()], [(0, 10.0, 40.0, [(10.0, 30.9)])], engine)
    assert len(engine.calls) == 1


def test_a_window_is_resumed_four_times_at_most():
    engine = FakeEngine(answer=lambda samples, language: result(resume_s=2.0))
    run([read_recording()], WHOLE, engine)
    assert len(engine.calls) == 1 + MAX_RESUMES


def test_a_window_that_ended_at_its_start_is_not_asked_again():
    engine = FakeEngine(answer=lambda samples, language: result("", resume_s=0.0))
    run([read_recording()], WHOLE, engine)
    assert len(engine.calls) == 1


def test_the_language_of_a_recording_is_that_of_its_first_window():
    engine = FakeEngine(answer=lambda samples, language: result(language=language or "de"))
    windows = [(0, 0.0, 30.0, [(0.0, 30.0)]), (0, 30.0, 60.0, [(30.0, 60.0)])]
    row = run([read_recording()], windows, engine, language="auto")
    assert [languages for _, languages, _ in engine.calls] == [[None], ["de"]]
    assert (row["transcripts"][0]["language"], row["transcripts"][0]["language_probability"]) == ("de", 0.9)


@pytest.mark.parametrize("language", ["auto", "en"])
def test_a_recordings_own_language_and_prompt_are_used_for_its_windows_alone(language):
    engine = FakeEngine(answer=lambda samples, language: result(language=language or "de"))
    windows = [(n, 30.0 * n, 30.0 * n + 10, [(30.0 * n, 30.0 * n + 10)]) for n in (0, 1)]
    recordings = [read_recording(language="fr", prompt="Bonjour"), read_recording("b.wav")]
    row = run(recordings, windows, engine, language=language)
    assert [t["language"] for t in row["transcripts"]] == ["fr", "de" if language == "auto" else "en"]
    assert sorted(engine.prompts, key=str) == ["Bonjour", None]


def test_a_short_first_window_does_not_decide_the_language():
    engine = FakeEngine()
    windows = [(0, 0.0, 2.0, [(0.0, 1.0)]), (0, 30.0, 60.0, [(30.0, 60.0)])]
    run([read_recording()], windows, engine, language="auto")
    assert len(engine.calls[0][0][0]) == 30 * RATE


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
