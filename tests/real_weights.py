"""Real weights, for the tests that want them: EARSHARD_WEIGHTS names the folder of whisper-base and more."""

import os
from pathlib import Path

import pytest

WEIGHTS = Path(os.environ.get("EARSHARD_WEIGHTS", ""))
needs_weights = pytest.mark.skipif(
    not os.environ.get("EARSHARD_WEIGHTS"), reason="EARSHARD_WEIGHTS names no folder of weights"
)
