"""whisper.cpp through pywhispercpp: the same weights written in its format, one window at a time.

Source of the format: `models/convert-h5-to-ggml.py` and `whisper_model_load` in whisper.cpp.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from importlib import import_module
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.benchmark.contender import Setting
from pipeline.benchmark.peers import openai_weights
from pipeline.engine.features import mel_filters
from pipeline.engine.snapshot import resolve

MAGIC = 0x67676D6C
FLOAT32, FLOAT16 = 0, 1
BLANK = 220
MIN_VOCABULARY = 51_865  # with fewer ids whisper.cpp takes a model for an English-only one
SIZES = (
    *("vocab_size", "max_source_positions", "d_model", "encoder_attention_heads", "encoder_layers"),
    *("max_target_positions", "d_model", "decoder_attention_heads", "decoder_layers", "num_mel_bins"),
)


class WhisperCpp:
    """whisper.cpp with its usual weights (float16), as the package's wheel was built.

    Its rules are not ours: suppressed tokens cannot be named. Their embeddings are zero here, so that greedy
    decoding never takes them, and the work is the same. Raises ValueError for a model that it cannot hold.
    """

    def __init__(self, setting: Setting) -> None:
        self._api = import_module("_pywhispercpp")
        self._setting = setting
        snapshot = resolve(setting.folder)
        if snapshot.config["vocab_size"] < MIN_VOCABULARY:
            raise ValueError(f"whisper.cpp knows no vocabulary of {snapshot.config['vocab_size']} ids")
        path = Path(f"{setting.folder}-ggml.bin")
        if not path.is_file():
            never = snapshot.generation["suppress_tokens"]
            write_ggml(path, snapshot.config, openai_weights(setting.folder), never)
        self._num_mels = snapshot.config["num_mel_bins"]
        settings = self._api.whisper_context_default_params()
        self._context = self._api.whisper_init_from_file_with_params(str(path), settings)

    def features(self, samples: Sequence[np.ndarray]) -> Tensor:
        """The samples, [batch, 480000]: it makes its features while it decodes."""
        return torch.from_numpy(np.stack(samples))

    def __call__(self, mel: Tensor) -> list[list[int]]:
        return [self._decode(window.numpy()) for window in mel]

    def _decode(self, window: np.ndarray) -> list[int]:
        api, context, samples = self._api, self._context, window
        if window.ndim == 2:  # features; without samples it keeps those that were set
            mel = np.ascontiguousarray(window, np.float32)
            api.whisper_set_mel(context, mel, mel.shape[1], self._num_mels)
            samples = np.zeros(0, np.float32)
        api.whisper_full(context, self._parameters(), samples, len(samples))
        return [
            api.whisper_full_get_token_id(context, segment, token)
            for segment in range(api.whisper_full_n_segments(context))
            for token in range(api.whisper_full_n_tokens(context, segment))
        ]

    def _parameters(self) -> Any:
        greedy = self._api.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY
        parameters = self._api.whisper_full_default_params(greedy)
        parameters.n_threads = self._setting.threads
        parameters.language = "en"
        parameters.max_tokens = self._setting.num_tokens - 1  # it stops after one more
        parameters.temperature_inc = 0.0  # no second decoding
        for name in ("no_timestamps", "single_segment", "no_context"):
            setattr(parameters, name, True)
        for name in ("print_progress", "print_realtime", "print_special", "print_timestamps"):
            setattr(parameters, name, False)
        return parameters


def write_ggml(path: Path, config: dict[str, Any], weights: dict[str, Tensor], never: Sequence[int]) -> None:
    """Write a model, matrices as float16. never: ids whose embeddings become zero."""
    weights = {name: tensor.float() for name, tensor in weights.items()}
    embedding = weights["decoder.token_embedding.weight"].clone()
    embedding[torch.tensor(never, dtype=torch.long)] = 0.0
    weights["decoder.token_embedding.weight"] = embedding
    with path.open("wb") as file:
        file.write(struct.pack("<12i", MAGIC, *(config[name] for name in SIZES), FLOAT16))
        filters = mel_filters(config["num_mel_bins"]).astype(np.float32)
        file.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        file.write(struct.pack("<i", config["vocab_size"]))
        for number in range(config["vocab_size"]):
            # Ids are compared, not texts, but it looks the blank up.
            word = b" " if number == BLANK else f"<{number}>".encode()
            file.write(struct.pack("<I", len(word)) + word)
        for name, tensor in weights.items():
            _write_tensor(file, name, tensor.numpy())


def _write_tensor(file: BufferedWriter, name: str, values: np.ndarray) -> None:
    if name.endswith(("conv1.bias", "conv2.bias")):
        values = values[:, None]
    is_matrix = values.ndim > 1 and "bias" not in name and "positional_embedding" not in name
    kind = FLOAT16 if is_matrix else FLOAT32
    encoded = name.encode()
    file.write(struct.pack("<3i", values.ndim, len(encoded), kind))
    file.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)) + encoded)
    file.write(np.ascontiguousarray(values, np.float16 if is_matrix else np.float32).tobytes())
