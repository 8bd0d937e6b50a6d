"""The engine needs torch and transformers and nothing else of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.engine.conftest import MINI

BLOCKED = ["ray", "pyarrow", "soundfile", "av", "jiwer", "soxr", "silero_vad", "fsspec.implementations.arrow"]
PROGRAM = f"""
import sys

sys.modules |= dict.fromkeys({BLOCKED!r})  # as if they were not installed
import numpy as np
from pipeline.engine import Engine, EngineOptions

engine = Engine.load(sys.argv[1], options=EngineOptions(max_new_tokens=3))
results = engine.transcribe([np.ones(16000, np.float32)], languages=["en"])
print(len(results), results[0].total_positions > 0, *(name for name in {BLOCKED!r} if sys.modules[name]))
"""


def test_it_transcribes_where_ray_arrow_and_audio_libraries_are_missing(model_folder):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model_folder(MINI))],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "1 True", done.stderr
