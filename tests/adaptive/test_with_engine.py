"""Adaptive sparsity on the bundled model: the same for any batch, and safe where it is far too sparse."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.adaptive.calibration import calibrate_unit, guarded
from pipeline.adaptive.shadow import ShardLevel
from pipeline.dataflow.transcription import transcribe_shard
from pipeline.engine import Engine, EngineOptions
from pipeline.engine.decoding.loops import find_loop
from pipeline.engine.sparsify.level import Level
from pipeline.metrics import shard
from pipeline.schema import TRANSCRIPTS, table_of
from tests.fakes import RATE, audio_table, read_recording

pytestmark = pytest.mark.slow

SPEECH = Path(__file__).parents[2] / "pipeline" / "demo" / "speech"
PIECES = (("kitchen.wav", 0, 12), ("station.flac", 0, 29), ("station.flac", 29, 58))  # seconds
STAMP = shard.RunStamp(run_id="run", fingerprint="f", plan_hash="p", gpu_hour_usd=3.5)


@pytest.fixture(scope="module")
def engine():
    return Engine.load("demo", device="cpu", options=EngineOptions())


@pytest.fixture(scope="module")
def speech():
    """Bundled recordings at 16 kHz in windows, each a recording of its own: a row of `SHARD_AUDIO`."""
    windows = [
        soundfile.read(SPEECH / name, start=first * RATE, stop=last * RATE, dtype="int16")[0]
        for name, first, last in PIECES
    ]
    recordings = [read_recording(f"{name}-{first}") for name, first, _ in PIECES]
    spans = [(i, 0.0, len(w) / RATE, [(0.0, len(w) / RATE)]) for i, w in enumerate(windows)]
    return audio_table(recordings, spans, samples=np.concatenate(windows))


@pytest.mark.parametrize("sparsity", [0.7, 0.9])
def test_no_window_runs_on_or_loops_and_its_retry_is_counted(engine, speech, sparsity):
    chosen = ShardLevel(rung=1, level=Level(sparsity=sparsity), share=0.0, salt="plan")
    seen = []

    class Watched:
        model_name, device = engine.model_name, engine.device
        batch_size, peak_memory_bytes, num_calls = engine.batch_size, 0, 1
        conditions_on_text = engine.conditions_on_text

        def transcribe(self, windows, **options):
            seen.extend(found := engine.transcribe(windows, **options))
            return found

    row = transcribe_shard(speech, Watched(), language="auto", sparsity=chosen).to_pylist()[0]
    limit = engine._model.shape.target_positions
    for result in seen:
        assert result.num_tokens < limit
        assert find_loop([token for segment in result.segments for token in segment.tokens]) is None
        assert (result.kept_positions == round((1 - sparsity) * 1500)) or result.fallback is not None
        assert result.retry_device_s == 0 or result.fallback is not None
    transcripts = table_of(TRANSCRIPTS, row["transcripts"])
    metrics = shard.metrics_row(0, 1, transcripts, row["measures"], STAMP)
    assert metrics["num_fallback"] == sum(result.fallback is not None for result in seen)
    assert metrics["fallback_device_s"] == pytest.approx(sum(result.retry_device_s for result in seen))
    assert metrics["fallback_device_s"] <= metrics["device_s"]


def test_a_batch_of_one_and_of_sixteen_see_the_same_loss_and_the_same_shadow(speech):
    ladder = (Level(selector="stride", sparsity=0.5, thin_ends=True),)
    chosen = ShardLevel(rung=1, level=ladder[0], share=1.0, salt="plan")
    samples, rows = [], []
    for batch_size in (1, 16):
        engine = Engine.load("demo", device="cpu", options=EngineOptions(batch_size=batch_size))
        sample = calibrate_unit(speech, engine, unit=0, language="auto", ladder=ladder)
        samples.append([without_times(window) for window in sample.to_pylist()[0]["windows"]])
        row = transcribe_shard(speech, engine, language="auto", sparsity=chosen).to_pylist()[0]
        texts = [[segment["text"] for segment in found["segments"]] for found in row["transcripts"]]
        rows.append((texts, without_times(row["measures"])))
    assert samples[0] == samples[1]
    assert len(samples[0]) == len(PIECES)
    assert sum(window["num_words"] for window in samples[0]) > 0
    assert rows[0] == rows[1]
    assert rows[0][1]["num_shadow"] == len(PIECES)


def test_what_calibration_makes_of_a_floor_afterwards_is_what_the_engine_does_with_it(engine, speech):
    level = Level(sparsity=0.6)

    def calibrated(one):
        sample = calibrate_unit(speech, engine, unit=0, language="auto", ladder=(one,))
        return sample.to_pylist()[0]["windows"]

    found = calibrated(level)
    lost = sum(row["sparse_errors"] for row in found)
    for floor in (-0.5, 0.0):  # one of two lossy windows is below the former
        errors = [row["sparse_errors"] for row in calibrated(replace(level, min_logprob=floor))]
        for row, seen in zip(found, errors, strict=True):
            expected = guarded(row, floor)["sparse_errors"]
            # Of a window that was cut the text as it was first decoded is not known any more.
            is_whole = row["total_positions"] == 1500
            assert seen == expected if is_whole else seen <= expected
        assert sum(errors) < lost
        lost = sum(errors)
    assert lost == 0


def without_times(found):
    """Counts without what a clock says of them; probabilities differ in the last digits."""
    return {name: found[name] for name in found if name.startswith("num_") or name.endswith("positions")}
