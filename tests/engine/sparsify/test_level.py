"""Levels per window: what a window keeps is its own affair, and so is its text."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding import quality_gates
from pipeline.engine.model import int8
from pipeline.engine.sparsify.ends import MARGIN, SIZES, STEP, thinned_positions
from pipeline.engine.sparsify.level import Level
from pipeline.engine.sparsify.sound import REACH, sounding_samples
from tests.engine.conftest import MINI, make_speechlike

THINNED = Level(layer=1, selector="stride", sparsity=0.5, thin_ends=True)


def make_spread(seconds: float, seed: int, *, noise: float = 0.0) -> np.ndarray:
    """One second of tones in every five."""
    window = make_speechlike(seconds, seed)
    window[np.arange(len(window)) % 80_000 > 16_000] = 0.0
    return window + np.random.default_rng(seed).normal(0, noise, len(window)).astype(np.float32)


WINDOWS = [
    make_speechlike(30.0, 0),
    make_spread(30.0, 1),
    make_speechlike(6.0, 2),
    make_spread(28.0, 3),
    make_speechlike(17.0, 4),
    make_speechlike(2.0, 5),
    make_spread(30.0, 6, noise=0.001),
]


@pytest.fixture
def no_retries(monkeypatch):
    monkeypatch.setattr(
        quality_gates, "judge", lambda *_, **__: quality_gates.Verdict(is_silent=False, passed=True)
    )


def transcribe(folder, windows, *, levels, dtype="float32", batch_size=3):
    options = EngineOptions(max_new_tokens=12, batch_size=batch_size)
    engine = Engine.load(folder, dtype=dtype, options=options)
    return engine.transcribe(windows, languages=["en"] * len(windows), levels=levels)


def essence(results):
    return [(result.text, result.kept, result.kept_positions, result.num_tokens) for result in results]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_what_is_kept_and_the_text_do_not_depend_on_company_or_order(model_folder, no_retries, dtype):
    if dtype == "int8" and not int8.is_supported():
        pytest.skip("int8 needs an x86 processor and oneDNN")
    folder = model_folder(MINI, 1)
    alone = essence(transcribe(folder, WINDOWS, levels=THINNED, dtype=dtype, batch_size=1))
    assert len({kept_positions for _, _, kept_positions, _ in alone}) >= 3
    for batch_size in (3, 16):
        assert (
            essence(transcribe(folder, WINDOWS, levels=THINNED, dtype=dtype, batch_size=batch_size)) == alone
        )
    backwards = transcribe(folder, WINDOWS[::-1], levels=THINNED, dtype=dtype, batch_size=3)
    assert essence(backwards)[::-1] == alone


def test_each_window_may_have_its_own_level_and_none_is_the_engines(model_folder, no_retries):
    folder = model_folder(MINI)
    levels = [None, Level(sparsity=0.5), Level(sparsity=0.7, layer=1, selector="stride"), THINNED]
    window = make_spread(30.0, 3)
    mixed = transcribe(folder, [window] * 4, levels=levels)
    assert [result.kept_positions for result in mixed[:3]] == [1500, 750, 450]
    assert mixed[0].kept is None
    assert len(mixed[1].kept) == 750
    for level, result in zip(levels, mixed, strict=True):
        assert essence(transcribe(folder, [window], levels=level)) == essence([result])


def test_a_level_that_keeps_everything_is_dense_bit_for_bit(model_folder, no_retries):
    folder = model_folder(MINI)
    dense, none, all_kept = (
        transcribe(folder, WINDOWS[:3], levels=level)
        for level in (None, Level(sparsity=0.0, layer=1), Level(sparsity=0.0, selector="random"))
    )
    for results in (none, all_kept):
        assert [(r.text, r.avg_logprob, r.kept_positions) for r in results] == [
            (r.text, r.avg_logprob, 1500) for r in dense
        ]


def test_a_sparse_window_that_fails_tells_what_its_retries_took_and_what_was_kept(model_folder):
    result = transcribe(model_folder(MINI), WINDOWS[1:2], levels=THINNED)[0]  # random text fails the gates
    assert result.fallback.startswith("dense")
    assert 0 < result.retry_device_s < result.device_s
    assert (result.kept_positions, len(result.kept)) == (1500, 750)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (Level(sparsity=0.5, layer=9), "a level's layer is 9; with this model it may be 1 to 2"),
        (Level(sparsity=0.5, selector="best"), "a level's selector is 'best'; it may be attention,"),
        ([None, None], "levels has 2 entries for 1 windows"),
    ],
)
def test_levels_that_the_model_cannot_do_are_refused(model_folder, levels, message):
    with pytest.raises(ValueError, match=message):
        transcribe(model_folder(MINI), [make_speechlike(1.0, 0)], levels=levels)


@pytest.mark.parametrize(
    "wrong",
    [{"sparsity": 1.0}, {"sparsity": -0.1}, {"layer": 0}, {"min_logprob": 0.1}, {"min_logprob": math.nan}],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=r"(sparsity|layer|min_logprob) is .*; it may be"):
        Level(**wrong)


def test_a_level_of_an_earlier_release_is_refused_by_the_name_of_what_is_gone():
    with pytest.raises(ValueError, match="share is not known in this release; measure anew"):
        Level.from_dict({"layer": 2, "selector": "stride", "share": 1.0})


@pytest.mark.parametrize("floor", [None, -0.25])
def test_a_level_survives_a_file(floor):
    level = replace(THINNED, min_logprob=floor)
    stored = json.loads(json.dumps(level.as_dict()))
    assert Level.from_dict(stored) == level
    del stored["min_logprob"]
    assert Level.from_dict(stored) == THINNED


def test_sparse_text_below_the_floor_is_what_dense_says_and_hears_its_language_again(model_folder):
    folder = model_folder(MINI)
    windows = [window for window in WINDOWS[1:3] if len(window)]
    dense = transcribe(folder, windows, levels=None)
    floored = transcribe(folder, windows, levels=replace(THINNED, min_logprob=0.0))
    assert {result.fallback.split("+")[0] for result in floored} == {"dense"}
    assert [(r.text, r.language, r.language_probability) for r in floored] == [
        (r.text, r.language, r.language_probability) for r in dense
    ]


@given(num_left=st.integers(1, 1500), sparsity=st.floats(0, 0.95))
def test_as_many_are_kept_as_are_asked_for_or_all_that_thinning_left(num_left, sparsity):
    level, asked = Level(sparsity=sparsity, thin_ends=True), max(1, round((1 - sparsity) * 1500))
    kept = level.size_of(num_left, 1500)
    assert kept == (num_left if num_left <= asked else max(1, round((1 - sparsity) * num_left)))
    assert level.size_of(1500, 1500) == asked


@settings(deadline=None, max_examples=40)
@given(silence_s=st.floats(0, 10), sound_s=st.floats(0.1, 15), rest_s=st.floats(0, 4))
def test_all_that_sounds_and_a_margin_is_left_and_a_tenth_of_the_ends_at_least(silence_s, sound_s, rest_s):
    pieces = [np.zeros(int(silence_s * 16_000), np.float32), make_tone(sound_s)]
    window = np.concatenate([*pieces, np.zeros(int(rest_s * 16_000), np.float32)])
    left = thinned_positions(window, 1500).tolist()
    assert left == sorted(set(left))
    assert len(left) in (*SIZES, 1500)
    sounds = sounding_samples(window).nonzero()[:, 0]
    first, last = max(0, int(sounds[0]) - MARGIN), min(1500, int(sounds[-1]) + 1 + MARGIN)
    assert set(range(first, last)) <= set(left)
    assert len(left) >= last - first + (1500 - (last - first)) // STEP
    if len(left) < 1500:
        gaps = np.diff([-1, *left, 1500])
        assert gaps.max() <= 2 * STEP


def test_a_clip_keeps_what_it_says_and_a_window_full_of_speech_keeps_every_second_position(
    model_folder, no_retries
):
    windows = [make_speechlike(2.0, 0), make_speechlike(5.0, 1), make_speechlike(30.0, 2)]
    found = transcribe(model_folder(MINI), windows, levels=THINNED)
    assert [result.kept_positions for result in found] == [300, 400, 750]
    assert found[2].kept == tuple(range(0, 1500, 2))
    assert set(range(100)) <= set(found[0].kept)


def sounding_of(window: np.ndarray) -> torch.Tensor:
    return sounding_samples(window)


def test_long_silence_does_not_sound_and_tones_do():
    window = np.concatenate([make_tone(5.0), np.zeros(160_000, np.float32), make_tone(5.0)])
    found = sounding_of(window)
    assert found[:250].all()
    assert found[750:1000].all()
    assert not found[265:735].any()
    assert len(found) == 1000


def test_samples_of_both_kinds_say_the_same():
    window = make_spread(30.0, 0, noise=0.001)
    whole = (window * 32767).astype(np.int16)
    whole.flags.writeable = False  # as Ray's object store gives them
    found = sounding_samples(whole)
    assert len(found) == 1500
    assert (found != sounding_samples(window)).float().mean() < 0.01
    assert sounding_samples(np.zeros(1000, np.int16)).tolist() == [False] * 4


def test_short_gaps_inside_speech_sound():
    gap = np.zeros((2 * REACH - 1) * 320, np.float32)
    window = np.concatenate([make_tone(3.0), gap, make_tone(3.0)])
    assert sounding_of(window)[:300].all()


def test_pauses_filled_with_noise_far_below_the_speech_do_not_sound():
    window = make_spread(30.0, 0, noise=0.001)
    assert 0.15 < sounding_of(window).float().mean() < 0.4


def test_steady_noise_sounds_throughout_and_absolute_silence_keeps_every_position():
    noise = np.random.default_rng(0).normal(0, 1e-3, 480_000).astype(np.float32)
    assert sounding_of(noise).all()
    silence = np.zeros(480_000, np.float32)
    assert not sounding_of(silence).any()
    assert len(thinned_positions(silence, 1500)) == 1500


def test_a_click_does_not_silence_quiet_speech():
    window = make_tone(10.0) * 0.05
    window[80_000:80_016] = 1.0
    assert sounding_of(window)[:500].all()


def test_loudness_does_not_matter():
    window = make_spread(30.0, 3, noise=0.001)
    assert torch.equal(sounding_of(window), sounding_of(window * 0.1))


def make_tone(seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * 300 * time)).astype(np.float32)
