"""The contenders by name: the engine as it is configured, and those peers that are installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from pipeline.benchmark.peers.contender import CaseSetup, Contender
from pipeline.benchmark.peers.engines import CTranslate2, Generate, OpenAIWhisper
from pipeline.engine.model.log_mel import LogMel
from pipeline.engine.model.snapshot import resolve
from pipeline.engine.model.whisper import load_model
from pipeline.engine.options import DEFAULT_LAYER, EngineOptions
from pipeline.engine.scheduling.passes import Passes
from pipeline.engine.scheduling.work import Pass, Work
from pipeline.engine.sparsify.level import Level

SPARSITY, LAYER = 0.5, DEFAULT_LAYER  # of the contenders with EAS


@dataclass(kw_only=True)
class GivenFeatures:
    """Stands in for the log-mel: a window's one sample is its row in the features."""

    mel: Tensor
    max_samples: int = 1

    def __call__(self, windows: Sequence[np.ndarray]) -> Tensor:
        return self.mel[[int(window[0]) for window in windows]]


class Ours:
    """The engine's passes, without the quality gates: random text never passes them."""

    def __init__(self, setting: CaseSetup, *, dtype: str, sparsity: float = 0.0, layer: int = LAYER) -> None:
        options = EngineOptions(
            timestamps="none",
            max_new_tokens=setting.num_tokens,
            sparsity=sparsity,
            sparsify_layer=layer,
            batch_size=setting.batch_size,
        )
        model = load_model(resolve(setting.folder), device=torch.device(setting.device), dtype=dtype)
        self._log_mel = LogMel(model.shape.num_mels, model.shape.num_frames, model.device)
        self._features = GivenFeatures(mel=torch.empty(0))
        self._pass = Pass(level=Level(layer=layer, sparsity=sparsity))
        self._passes = Passes(replace(model, features=self._features), options, batch_size=setting.batch_size)

    def features(self, samples: Sequence[np.ndarray]) -> Tensor:
        """As the engine makes them."""
        return self._log_mel(samples)

    @torch.inference_mode()
    def __call__(self, mel: Tensor) -> list[list[int]]:
        self._features.mel = mel
        works = [Work(samples=np.array([row]), seed=0, language="en") for row in range(len(mel))]
        return [decoding.tokens for decoding in self._passes.run(works, self._pass)]


Build = Callable[[CaseSetup], Contender]

OURS: dict[str, Build] = {
    "f32": lambda setting: Ours(setting, dtype="float32"),
    "f32_eas": lambda setting: Ours(setting, dtype="float32", sparsity=SPARSITY),
    "int8": lambda setting: Ours(setting, dtype="int8"),
    "int8_eas": lambda setting: Ours(setting, dtype="int8", sparsity=SPARSITY),
}
PEERS: dict[str, Build] = {
    "generate": Generate,
    "openai": OpenAIWhisper,
    "ct2_f32": lambda setting: CTranslate2(setting, compute_type="float32"),
    "ct2_int8": lambda setting: CTranslate2(setting, compute_type="int8"),
}
BUILDS = {**OURS, **PEERS}
MODULES = {
    "generate": "transformers",
    "openai": "whisper",
    "ct2_f32": "ctranslate2",
    "ct2_int8": "ctranslate2",
}
PACKAGES = ("torch", "transformers", "ctranslate2", "faster-whisper", "openai-whisper")


def names(*, peers: bool) -> list[str]:
    """Ours and, if asked, those peers whose packages are installed."""
    present = [name for name in PEERS if find_spec(MODULES[name])]
    return [*OURS, *(present if peers else [])]


def absent() -> list[str]:
    """The peers whose packages are not installed."""
    return [name for name in PEERS if not find_spec(MODULES[name])]


def versions() -> dict[str, str | None]:
    """Releases of what is compared; None where a package is missing."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
