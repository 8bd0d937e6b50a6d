"""Engine.transcribe as its callers see it."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding import quality_gates, slots
from pipeline.engine.scheduling import listening
from pipeline.engine.scheduling.work import Pass, Work
from tests.engine.conftest import MINI, MINI_EN, make_speechlike


@pytest.fixture
def engine(model_folder):
    return Engine.load(model_folder(MINI, 1), options=EngineOptions(max_new_tokens=16, batch_size=3))


def without_times(results):
    return [{**vars(result), "device_s": None} for result in results]


def test_no_windows_give_no_results_and_an_empty_window_gives_an_empty_text(engine):
    assert engine.transcribe([]) == []
    window = make_speechlike(2.0, 1)
    results = engine.transcribe([np.zeros(0, np.int16), window, np.zeros(0, np.float32)])
    assert [result.text for result in results[::2]] == ["", ""]
    assert results[0].segments == ()
    assert results[0].sparsity == 0.0
    assert results[1].num_tokens > 0


@pytest.mark.parametrize(
    "window",
    [
        np.zeros(16000, np.int16),
        np.random.default_rng(0).integers(0, 2, 480_000).astype(np.int16),
        np.full(16000, 2e-5, np.float32),
        make_speechlike(0.09, 1),
        make_speechlike(1.0, 1)[:1],
    ],
)
def test_what_can_hold_no_word_is_an_empty_text_and_takes_no_time(engine, window):
    (result,) = engine.transcribe([window])
    assert (result.text, result.segments, result.device_s, result.kept_positions) == ("", (), 0.0, 0)


def test_quiet_windows_are_heard(engine):
    assert engine.transcribe([make_speechlike(1.0, 1) * np.float32(1e-3)])[0].num_tokens > 0


def test_results_come_in_the_order_of_the_windows(engine):
    windows = [make_speechlike(1.0 + n, n) for n in range(5)]
    forwards, backwards = engine.transcribe(windows), engine.transcribe(windows[::-1])
    assert [r.text for r in forwards] == [r.text for r in backwards[::-1]]
    assert len({r.text for r in forwards}) > 1


def test_a_windows_result_does_not_depend_on_its_company(engine):
    windows = [make_speechlike(4.0, n) for n in range(4)]
    together = engine.transcribe(windows, seeds=[10, 11, 12, 13])
    for n, window in enumerate(windows):
        alone = engine.transcribe([window], seeds=[10 + n])[0]
        assert alone.text == together[n].text
        assert alone.segments[0].tokens == together[n].segments[0].tokens
        assert (
            alone.fallback == together[n].fallback is not None
        )  # random text fails the gates: draws took place
        assert alone.avg_logprob == pytest.approx(together[n].avg_logprob, abs=1e-3)


def test_another_seed_draws_another_text_and_the_same_seed_the_same(engine):
    window = make_speechlike(4.0, 1)
    works = [Work(samples=window, seed=seed, language="en") for seed in (1, 2, 1)]
    with torch.inference_mode():
        drawn = [decoding.tokens for decoding in engine._passes.run(works, Pass(temperature=1.0))]
    assert drawn[0] == drawn[2] != drawn[1]


def test_int16_and_float32_samples_give_the_same_text(engine):
    window = (make_speechlike(5.0, 3) * 32767).astype(np.int16)
    pair = engine.transcribe([window, window.astype(np.float32) / 32768.0])
    assert pair[0].text == pair[1].text


def test_segments_lie_in_the_window_in_order_and_hold_its_text(engine):
    for result in engine.transcribe([make_speechlike(seconds, 4) for seconds in (3.0, 30.0)]):
        times = [time for segment in result.segments for time in (segment.start_s, segment.end_s)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= 30.0
        assert "".join(segment.text for segment in result.segments).replace(" ", "") == result.text.replace(
            " ", ""
        )


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (np.zeros(16000, np.float64), "may be mono float32 or int16"),
        (np.zeros((2, 16000), np.float32), "may be mono float32 or int16"),
        (np.zeros(480_001, np.float32), "may be 30 s"),
    ],
)
def test_windows_that_the_model_cannot_take_are_refused(engine, window, message):
    with pytest.raises(ValueError, match=message):
        engine.transcribe([window])


def test_unknown_languages_and_lists_of_another_length_are_refused(engine):
    window = make_speechlike(1.0, 0)
    with pytest.raises(ValueError, match=r"language is 'xx'; the model knows .*en,"):
        engine.transcribe([window], languages=["xx"])
    with pytest.raises(ValueError, match="languages has 2 entries for 1 windows"):
        engine.transcribe([window], languages=["en", "de"])


def test_a_given_language_is_kept_and_others_are_detected_with_a_probability(engine):
    results = engine.transcribe([make_speechlike(3.0, n) for n in range(2)], languages=["de", None])
    assert (results[0].language, results[0].language_probability) == ("de", None)
    assert results[1].language in engine.languages
    assert 0 < results[1].language_probability <= 1


def test_a_window_that_fails_in_a_language_that_is_a_guess_is_decoded_in_its_own(engine, monkeypatch):
    window = make_speechlike(3.0, 1)
    (own,) = engine.transcribe([window])
    other = next(code for code in engine.languages if code != own.language)
    verdicts = iter([False, True, True])
    monkeypatch.setattr(
        quality_gates, "judge", lambda *_, **__: quality_gates.Verdict(is_silent=False, passed=next(verdicts))
    )
    (asked,) = engine.transcribe([window], languages=[other], are_guesses=True)
    assert (asked.language, asked.fallback) == (own.language, "language")
    assert asked.language_probability == own.language_probability


def test_an_english_only_model_says_en_without_a_probability(model_folder):
    engine = Engine.load(model_folder(MINI_EN), options=EngineOptions(max_new_tokens=10))
    result = engine.transcribe([make_speechlike(3.0, 1)])[0]
    assert (result.language, result.language_probability) == ("en", None)


def test_the_time_of_the_alignment_is_not_that_of_a_retry(model_folder, monkeypatch):
    monkeypatch.setattr(
        quality_gates, "judge", lambda *_, **__: quality_gates.Verdict(is_silent=False, passed=True)
    )
    options = EngineOptions(max_new_tokens=20, word_timestamps=True)
    (result,) = Engine.load(model_folder(MINI), options=options).transcribe([make_speechlike(5.0, 1)])
    assert result.segments[0].words
    assert (result.fallback, result.retry_device_s) == (None, 0.0)


def test_the_time_of_listening_for_a_repetition_is_not_that_of_a_retry(model_folder, monkeypatch):
    verdict = quality_gates.Verdict(is_silent=False, passed=False, repeats=True)
    monkeypatch.setattr(quality_gates, "judge", lambda *_, **__: verdict)
    monkeypatch.setattr(listening, "is_said_again", lambda *_: True)
    engine = Engine.load(model_folder(MINI), options=EngineOptions(max_new_tokens=20))
    (result,) = engine.transcribe([make_speechlike(5.0, 1)])
    assert (result.fallback, result.retry_device_s) == (None, 0.0)
    assert result.num_tokens > 0


@pytest.mark.timing
def test_shares_of_the_device_time_add_up_to_the_busy_time(model_folder):
    engine = Engine.load(model_folder(MINI), options=EngineOptions(max_new_tokens=20, batch_size=2))
    engine.warm_up()
    started = time.perf_counter()
    results = engine.transcribe([make_speechlike(5.0, n) for n in range(4)])
    wall_s = time.perf_counter() - started
    assert all(result.device_s > 0 for result in results)
    assert sum(result.device_s for result in results) <= wall_s
    assert 0.9 * wall_s < sum(result.device_s for result in results)


def test_sparse_windows_say_how_many_positions_were_kept(model_folder, monkeypatch):
    monkeypatch.setattr(
        quality_gates, "judge", lambda *_, **__: quality_gates.Verdict(is_silent=False, passed=True)
    )
    options = EngineOptions(max_new_tokens=8, sparsity=0.5, sparsify_layer=1)
    result = Engine.load(model_folder(MINI), options=options).transcribe([make_speechlike(9.0, 1)])[0]
    assert (result.kept_positions, result.total_positions, result.sparsity) == (750, 1500, 0.5)
    assert result.fallback is None


def test_a_sparse_window_that_fails_is_dense_in_the_end(model_folder, monkeypatch):
    verdicts = {750: False, 1500: True}
    monkeypatch.setattr(
        quality_gates,
        "judge",
        lambda d, *_, **__: quality_gates.Verdict(is_silent=False, passed=verdicts[d.num_positions]),
    )
    window = make_speechlike(9.0, 1)
    dense_options = EngineOptions(max_new_tokens=8)
    dense = Engine.load(model_folder(MINI), options=dense_options).transcribe([window], languages=["en"])[0]
    sparse_options = EngineOptions(max_new_tokens=8, sparsity=0.5)
    sparse = Engine.load(model_folder(MINI), options=sparse_options).transcribe([window], languages=["en"])[0]
    assert (sparse.fallback, sparse.sparsity, sparse.text) == ("dense", 0.0, dense.text)
    assert sparse.device_s > 0


def test_silence_is_an_empty_text(model_folder, monkeypatch):
    engine = Engine.load(model_folder(MINI), options=EngineOptions(max_new_tokens=8))
    monkeypatch.setattr(slots, "no_speech_probs", lambda _model, hidden, _starts: [0.9] * len(hidden))
    result = engine.transcribe([make_speechlike(2.0, 0)])[0]  # random weights are always unsure
    assert (result.text, result.segments, result.num_tokens, result.fallback) == ("", (), 0, None)
    assert result.no_speech_prob == 0.9


@pytest.mark.parametrize(("half", "least"), [("bfloat16", 0.98), ("float16", 0.9995)])
def test_half_the_bits_hear_nearly_the_same(model_folder, half, least):
    options = EngineOptions(max_new_tokens=8)
    engines = [Engine.load(model_folder(MINI), dtype=dtype, options=options) for dtype in ("float32", half)]
    mel = engines[0]._model.features([make_speechlike(3.0, 0)])
    with torch.inference_mode():
        exact, rounded = (engine._model.encoder(mel).float() for engine in engines)
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=-1).min() > least
    assert engines[1].transcribe([make_speechlike(3.0, 0)])[0].num_tokens > 0
