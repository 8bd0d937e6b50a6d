"""The engine and its peers behind one method: features in, a fixed number of greedy tokens out.

Every contender decodes the same features (computed outside, for all) with the same weights, prompt
(start, English, transcribe, no timestamps) and number of tokens; the end token is suppressed for all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.loading import read_weights
from pipeline.engine.model import load_model
from pipeline.engine.options import EngineOptions
from pipeline.engine.passes import Pass, Passes, Work
from pipeline.engine.policy import Level
from pipeline.engine.snapshot import resolve


class Contender(Protocol):
    """Decodes features, float32 [batch, num_mels, frames], greedily; returns the tokens of each window."""

    def __call__(self, mel: Tensor) -> list[list[int]]: ...


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all contenders of a case share."""

    folder: Path
    num_tokens: int
    batch_size: int
    threads: int
    device: str = "cpu"


@dataclass(kw_only=True)
class GivenFeatures:
    """Stands in for the log-mel: a window's one sample is its row in the features."""

    mel: Tensor
    max_samples: int = 1

    def __call__(self, windows: Sequence[np.ndarray]) -> Tensor:
        return self.mel[[int(window[0]) for window in windows]]


class Ours:
    """The engine's passes, without the quality gates: random text never passes them."""

    def __init__(self, setting: Setting, *, dtype: str, sparsity: float = 0.0, layer: int = 2) -> None:
        options = EngineOptions(
            timestamps=False,
            max_new_tokens=setting.num_tokens,
            sparsity=sparsity,
            sparsify_layer=layer,
            batch_size=setting.batch_size,
        )
        model = load_model(resolve(setting.folder), device=torch.device(setting.device), dtype=dtype)
        self._features = GivenFeatures(mel=torch.empty(0))
        self._pass = Pass(level=Level(layer=layer, sparsity=sparsity))
        self._passes = Passes(replace(model, features=self._features), options, batch_size=setting.batch_size)

    @torch.inference_mode()
    def __call__(self, mel: Tensor) -> list[list[int]]:
        self._features.mel = mel
        works = [Work(samples=np.array([row]), seed=0, language="en") for row in range(len(mel))]
        return [decoding.tokens for decoding in self._passes.run(works, self._pass)]


class Generate:
    """transformers' generate."""

    def __init__(self, setting: Setting, *, dtype: torch.dtype = torch.float32) -> None:
        from transformers import WhisperForConditionalGeneration

        self._num_tokens = setting.num_tokens
        loaded = WhisperForConditionalGeneration.from_pretrained(setting.folder, dtype=dtype)
        self._model = loaded.to(setting.device).eval()

    @torch.inference_mode()
    def __call__(self, mel: Tensor) -> list[list[int]]:
        out = self._model.generate(
            mel.to(self._model.dtype),
            language="en",
            task="transcribe",
            return_timestamps=False,
            max_new_tokens=self._num_tokens,
            num_beams=1,
            do_sample=False,
            force_unique_generate_call=True,
        )
        return [row[-self._num_tokens :] for row in out.tolist()]


class CTranslate2:
    """The engine inside faster-whisper."""

    def __init__(self, setting: Setting, *, compute_type: str) -> None:
        ctranslate2 = import_module("ctranslate2")

        snapshot = resolve(setting.folder)
        ids = snapshot.generation
        self._prompt = [
            ids["decoder_start_token_id"],
            ids["lang_to_id"]["<|en|>"],
            ids["task_to_id"]["transcribe"],
            ids["no_timestamps_token_id"],
        ]
        self._suppress, self._num_tokens = ids["suppress_tokens"], setting.num_tokens
        converted = Path(tempfile.gettempdir()) / f"ct2-{snapshot.revision}"
        if not converted.is_dir():
            ctranslate2.converters.TransformersConverter(str(setting.folder)).convert(str(converted))
        self._storage = ctranslate2.StorageView
        self._model = ctranslate2.models.Whisper(
            str(converted),
            device=setting.device,
            compute_type=compute_type,
            intra_threads=setting.threads,
            inter_threads=1,
        )

    def __call__(self, mel: Tensor) -> list[list[int]]:
        results = self._model.generate(
            self._storage.from_array(np.ascontiguousarray(mel.numpy())),
            [self._prompt] * len(mel),
            beam_size=1,
            # It halves the length for Whisper and counts the prompt in.
            max_length=2 * self._num_tokens,
            suppress_tokens=self._suppress,
        )
        return [result.sequences_ids[0][: self._num_tokens] for result in results]


class OpenAIWhisper:
    """The openai-whisper package."""

    def __init__(self, setting: Setting) -> None:
        whisper = import_module("whisper")

        snapshot = resolve(setting.folder)
        config = snapshot.config
        dimensions = whisper.model.ModelDimensions(
            n_mels=config["num_mel_bins"],
            n_audio_ctx=config["max_source_positions"],
            n_audio_state=config["d_model"],
            n_audio_head=config["encoder_attention_heads"],
            n_audio_layer=config["encoder_layers"],
            n_vocab=config["vocab_size"],
            n_text_ctx=config["max_target_positions"],
            n_text_state=config["d_model"],
            n_text_head=config["decoder_attention_heads"],
            n_text_layer=config["decoder_layers"],
        )
        self._whisper = whisper
        self._model = whisper.model.Whisper(dimensions).eval()
        weights = {_openai_name(name): tensor for name, tensor in read_weights(setting.folder).items()}
        weights.pop("", None)
        self._model.load_state_dict(weights)
        self._options = whisper.DecodingOptions(
            language="en",
            without_timestamps=True,
            fp16=False,
            sample_len=setting.num_tokens,
            suppress_tokens=snapshot.generation["suppress_tokens"],
        )

    @torch.inference_mode()
    def __call__(self, mel: Tensor) -> list[list[int]]:
        return [result.tokens for result in self._whisper.decode(self._model, mel, self._options)]


# Parts of names in transformers and what openai-whisper calls them.
OPENAI_NAMES = {
    "model.": "",
    "layers.": "blocks.",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn": "cross_attn",
    "self_attn": "attn",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "out",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "embed_tokens": "token_embedding",
}


def _openai_name(name: str) -> str:
    if name == "proj_out.weight":
        return ""
    for theirs, ours in OPENAI_NAMES.items():
        name = name.replace(theirs, ours)
    return name


Build = Callable[[Setting], Contender]

OURS: dict[str, Build] = {
    "f32": lambda setting: Ours(setting, dtype="float32"),
    "f32_eas": lambda setting: Ours(setting, dtype="float32", sparsity=0.5),
    "int8": lambda setting: Ours(setting, dtype="int8"),
    "int8_eas": lambda setting: Ours(setting, dtype="int8", sparsity=0.5),
}
PEERS: dict[str, Build] = {
    "generate": Generate,
    "openai": OpenAIWhisper,
    "ct2_f32": lambda setting: CTranslate2(setting, compute_type="float32"),
    "ct2_int8": lambda setting: CTranslate2(setting, compute_type="int8"),
}
PACKAGES: dict[str, str] = {"openai": "whisper", "ct2_f32": "ctranslate2", "ct2_int8": "ctranslate2"}


def contenders(*, peers: bool) -> dict[str, Build]:
    """Ours and, if asked, those peers whose packages are installed."""
    present = {name: build for name, build in PEERS.items() if find_spec(PACKAGES.get(name, "transformers"))}
    return {**OURS, **(present if peers else {})}


def versions() -> dict[str, str | None]:
    """Releases of what is compared; None where a package is missing."""
    found: dict[str, str | None] = {}
    for name in ("torch", "transformers", "ctranslate2", "faster-whisper", "openai-whisper"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
