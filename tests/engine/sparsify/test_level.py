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
from pipeline.engine.model.log_mel import LogMel
from pipeline.engine.sparsify.level import MARGIN, Level
from pipeline.engine.sparsify.phases import MAX_TRACE, SILENCE_STEP, choose_kept, keep_sounding
from pipeline.engine.sparsify.selectors import SELECTORS, Evidence
from pipeline.engine.sparsify.sound import REACH, sounding_positions, sounding_samples
from tests.engine.conftest import MINI, make_speechlike

SHARE = Level(layer=1, share=0.8)


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
        quality_gates, "judge", lambda *_: quality_gates.Verdict(is_silent=False, passed=True)
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
    alone = essence(transcribe(folder, WINDOWS, levels=SHARE, dtype=dtype, batch_size=1))
    assert len({kept_positions for _, _, kept_positions, _ in alone}) >= 3
    for batch_size in (3, 16):
        assert essence(transcribe(folder, WINDOWS, levels=SHARE, dtype=dtype, batch_size=batch_size)) == alone
    backwards = transcribe(folder, WINDOWS[::-1], levels=SHARE, dtype=dtype, batch_size=3)
    assert essence(backwards)[::-1] == alone


def test_each_window_may_have_its_own_level_and_none_is_the_engines(model_folder, no_retries):
    folder = model_folder(MINI)
    levels = [None, Level(sparsity=0.5), Level(sparsity=0.7, layer=1, selector="stride"), SHARE]
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
        for level in (None, Level(sparsity=0.0, layer=1), Level(share=100.0, layer=1))
    )
    for results in (none, all_kept):
        assert [(r.text, r.avg_logprob, r.kept_positions) for r in results] == [
            (r.text, r.avg_logprob, 1500) for r in dense
        ]


def test_a_sparse_window_that_fails_tells_what_its_retries_took_and_what_was_kept(model_folder):
    result = transcribe(model_folder(MINI), WINDOWS[1:2], levels=SHARE)[0]  # random text fails the gates
    assert result.fallback.startswith("dense")
    assert 0 < result.retry_device_s < result.device_s
    assert (result.kept_positions, len(result.kept)) == (1500, 600)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (Level(sparsity=0.5, layer=9), "a level's layer is 9; with this model it may be 1 to 2"),
        (Level(sparsity=0.5, selector="best"), "a level's selector is 'best'; it may be attention,"),
        (Level(share=0.5, sizes=(600, 1000)), "a level's sizes end with 1000; with this model that is 1500"),
        ([None, None], "levels has 2 entries for 1 windows"),
    ],
)
def test_levels_that_the_model_cannot_do_are_refused(model_folder, levels, message):
    with pytest.raises(ValueError, match=message):
        transcribe(model_folder(MINI), [make_speechlike(1.0, 0)], levels=levels)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"share": 0.5, "sparsity": 0.5}, {"share": 0}, {"sparsity": 1.0}, {"share": 1, "sizes": (3, 2)},
     {"sparsity": 0.5, "layer": 0}, {"share": 1, "min_logprob": 0.1}, {"share": 1, "min_logprob": math.nan}],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=r"level has either|(share|sparsity|sizes|layer|min_logprob) is"):
        Level(**wrong)


@pytest.mark.parametrize("floor", [None, -0.25])
def test_a_level_survives_a_file(floor):
    level = replace(SHARE, min_logprob=floor)
    stored = json.loads(json.dumps(level.as_dict()))
    assert Level.from_dict(stored) == level
    del stored["min_logprob"]
    assert Level.from_dict(stored) == SHARE


def test_sparse_text_below_the_floor_is_what_dense_says_and_hears_its_language_again(model_folder):
    folder = model_folder(MINI)
    windows = [window for window in WINDOWS[1:3] if len(window)]
    dense = transcribe(folder, windows, levels=None)
    floored = transcribe(folder, windows, levels=replace(SHARE, min_logprob=0.0))
    assert {result.fallback.split("+")[0] for result in floored} == {"dense"}
    assert [(r.text, r.language, r.language_probability) for r in floored] == [
        (r.text, r.language, r.language_probability) for r in dense
    ]


@given(share=st.floats(0.05, 3.0), num=st.integers(0, 1500))
def test_the_size_holds_the_share_and_a_margin_or_is_everything(share, num):
    size = Level(share=share).size_for(num)
    assert size == 1500 or size >= share * num + MARGIN
    smaller = [one for one in Level(share=share).sizes if one < size]
    assert not smaller or smaller[-1] < share * num + MARGIN + 1


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(list(SELECTORS)), seed=st.integers(0, 999), k=st.integers(1, 40),
    num=st.integers(1, 39),
)  # fmt: skip
def test_no_more_than_a_trace_of_silence_is_kept_while_a_sounding_position_is_dropped(name, seed, k, num):
    generator = torch.Generator().manual_seed(seed)
    sounding = torch.zeros(40, dtype=torch.bool)
    sounding[torch.randperm(40, generator=generator)[:num]] = True
    kept = keep_sounding(torch.rand(40, generator=generator), sounding, k, SELECTORS[name])
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert len(kept) == k
    num_silent = int((~sounding[kept]).sum())
    assert num_silent == max(k - num, min((40 - num) // SILENCE_STEP, k // MAX_TRACE))


def sounding_of(window: np.ndarray) -> torch.Tensor:
    mel = LogMel(80, 3000, torch.device("cpu"))([window])[0]
    return sounding_positions(mel, len(window))


def test_padding_and_long_silence_do_not_sound_and_tones_do():
    window = np.concatenate([make_tone(5.0), np.zeros(160_000, np.float32), make_tone(5.0)])
    found = sounding_of(window)
    assert found[:250].all()
    assert found[750:1000].all()
    assert not found[265:735].any()
    assert not found[1015:].any()


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_samples_say_where_a_window_sounds_as_its_features_do(dtype):
    window = make_spread(30.0, 0, noise=0.001)
    scale = 1 if dtype is np.float32 else 32767
    samples = (window * scale).astype(dtype)
    samples.flags.writeable = False  # as Ray's object store gives them
    found = sounding_samples(samples)
    assert len(found) == 1500
    assert (found != sounding_of(window)).float().mean() < 0.03
    assert sounding_samples(np.zeros(1000, dtype)).tolist() == [False] * 4


def test_short_gaps_inside_speech_sound():
    gap = np.zeros((2 * REACH - 1) * 320, np.float32)
    window = np.concatenate([make_tone(3.0), gap, make_tone(3.0)])
    assert sounding_of(window)[:300].all()


def test_pauses_filled_with_noise_far_below_the_speech_do_not_sound():
    window = make_spread(30.0, 0, noise=0.001)
    assert 0.15 < sounding_of(window).float().mean() < 0.4


def test_steady_noise_and_a_quiet_window_sound_throughout():
    noise = np.random.default_rng(0).normal(0, 1e-3, 480_000).astype(np.float32)
    assert sounding_of(noise).all()
    assert sounding_of(np.zeros(480_000, np.float32)).all()


def test_a_click_does_not_silence_quiet_speech():
    window = make_tone(10.0) * 0.05
    window[80_000:80_016] = 1.0
    assert sounding_of(window)[:500].all()


def test_loudness_does_not_matter():
    window = make_spread(30.0, 3, noise=0.001)
    assert torch.equal(sounding_of(window), sounding_of(window * 0.1))


def test_a_window_whose_attention_is_uniform_stays_dense():
    keys = torch.randn(1, 2, 1500, 8, generator=torch.Generator().manual_seed(0))
    mel = LogMel(80, 3000, torch.device("cpu"))([make_tone(3.0)])
    clear = Evidence(q=keys, k=keys, mel=mel, seeds=[0])
    uniform = Evidence(q=keys * 0.0, k=keys, mel=mel, seeds=[0])
    assert len(choose_kept(clear, SHARE, [48_000])[0]) == 600
    assert len(choose_kept(uniform, SHARE, [48_000])[0]) == 1500
    assert len(choose_kept(uniform, Level(sparsity=0.5), [48_000])[0]) == 750


def make_tone(seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * 300 * time)).astype(np.float32)
