"""Far too sparse on purpose: the gates catch what comes of it, and the metrics say how often."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import RATE, audio_table, read_recording

from pipeline import commit
from pipeline.adaptive.shadow import ShardLevel
from pipeline.engine import Engine, EngineOptions
from pipeline.engine.guard import find_loop
from pipeline.engine.policy import Level
from pipeline.schema import TRANSCRIPTS, table_of
from pipeline.transcription import transcribe_shard

pytestmark = pytest.mark.slow

SPEECH = Path(__file__).parents[1] / "pipeline" / "demo" / "speech"
PIECES = (("kitchen.wav", 0, 12), ("station.flac", 0, 29), ("station.flac", 29, 58))  # seconds
STAMP = commit.RunStamp(run_id="run", fingerprint="f", plan_hash="p", gpu_hour_usd=3.5)


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
    metrics = commit.metrics_row(0, 1, transcripts, row["measures"], STAMP)
    assert metrics["num_fallback"] == sum(result.fallback is not None for result in seen)
    assert metrics["fallback_device_s"] == pytest.approx(sum(result.retry_device_s for result in seen))
    assert metrics["fallback_device_s"] <= metrics["device_s"]
