"""A shard under every setting."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.sparsify.level import Level
from pipeline.search.settings import Setting
from pipeline.search.trials import Trials
from pipeline.search.try_shard import SearchEngines, try_shard, with_noise
from tests.fakes import RATE, audio_table, read_recording
from tests.search.made_search import DENSE, HALF, Levelled, shard, tried


def test_every_window_is_tried_once_under_every_setting():
    chosen, (row,) = tried([HALF, Level(layer=1, sparsity=0.3)])
    keys = [(trial["setting"], trial["recording_id"]) for trial in row["trials"]]
    assert sorted(keys) == sorted((s.name, f"{n}.wav") for s in chosen for n in range(3))
    assert row["device_s"] == pytest.approx(3 * (1 + 1 + 0.5 + 0.7))


def test_another_setting_comes_first_in_the_next_shard():
    engine = Levelled()
    chosen = [Setting(level=None), Setting(level=HALF)]
    table = shard(1)
    for shard_id in (0, 1):
        moved = table.set_column(0, table.field(0), pa.array([shard_id], pa.int32()))
        try_shard(moved, SearchEngines(engines={None: engine}, settings=chosen), language="en")
    assert [levels for _, levels in engine.calls] == [None, HALF, HALF, None]


def test_dense_begun_earlier_hears_silence_before_each_window_and_stands_at_its_place():
    engine = Levelled()
    table = try_shard(shard(), SearchEngines(engines={None: engine}, settings=DENSE), language="en")
    plain, shifted = sorted((windows for windows, _ in engine.calls), key=lambda windows: len(windows[0]))
    for own, earlier in zip(plain, shifted, strict=True):
        assert len(earlier) == len(own) + 2080
        assert not earlier[:2080].any()
        assert (earlier[2080:] == own).all()
    starts = {trial["start_s"] for trial in table.to_pylist()[0]["trials"]}
    assert starts == {0.0}


def test_recordings_that_failed_and_those_that_are_too_long_are_failures():
    recordings = [read_recording("a.wav"), read_recording("b.wav", error_type="broken", error_message="b")]
    overflow = {
        "recording_id": "a.wav", "uri": "/in/a.wav", "member": None, "part": 1, "offset_s": 9.0,
        "duration_s": None, "shard_id": 0, "bytes": 1, "identity": "1", "reference": None,
    }  # fmt: skip
    table = audio_table(recordings, [(0, 0.0, 1.0, [])], overflow=[overflow])
    bench = SearchEngines(engines={None: Levelled()}, settings=[Setting(level=None)])
    (row,) = try_shard(table, bench, language="en").to_pylist()
    assert {one["recording_id"]: one["error_type"] for one in row["failures"]} == {
        "b.wav": "broken",
        "a.wav": "too_long",
    }
    assert not Trials.collect([row], {}, {}).by_setting


@settings(deadline=None, max_examples=20)
@given(snr_db=st.floats(0, 40), seed=st.integers(0, 99))
def test_noise_lies_as_far_below_the_speech_as_asked(snr_db, seed):
    clean = (3000 * np.sin(np.arange(RATE) / 5)).astype(np.int16)
    noise = with_noise(clean, snr_db, seed=seed).astype(float) - clean
    measured = 10 * np.log10(np.mean(clean.astype(float) ** 2) / np.mean(noise**2))
    assert measured == pytest.approx(snr_db, abs=0.3)
    assert np.array_equal(with_noise(clean, snr_db, seed=seed), with_noise(clean, snr_db, seed=seed))


def test_silence_stays_silence_under_noise():
    silence = np.zeros(100, np.int16)
    assert with_noise(silence, 10.0, seed=0) is silence
