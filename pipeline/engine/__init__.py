"""The engine: arrays of samples to transcripts, with torch and transformers and nothing else of ours.

engine = Engine.load("openai/whisper-large-v3-turbo", options=EngineOptions(sparsity=0.5))
results = engine.transcribe(windows)  # float32 or int16, mono, 16 kHz, at most 30 s each
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.engine.model.snapshot import ModelNotFound
from pipeline.engine.results import Segment, WindowResult, Word

if TYPE_CHECKING:
    from pipeline.engine.engine import Engine
    from pipeline.engine.options import EngineOptions

NEED_TORCH = {"Engine": "engine", "EngineOptions": "options"}
# Raised whenever the same window, model and options may give another text.
ENGINE_VERSION = "13"

__all__ = ["ENGINE_VERSION", "Engine", "EngineOptions", "ModelNotFound", "Segment", "WindowResult", "Word"]


def __getattr__(name: str) -> Any:
    """Import what needs torch with its first use: that takes seconds."""
    if name in NEED_TORCH:
        return getattr(import_module(f"pipeline.engine.{NEED_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
