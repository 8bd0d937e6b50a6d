"""One loaded model: its numbers, ids, features, encoder and decoder on one device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.engine.model import packed
from pipeline.engine.model.decoder import Decoder
from pipeline.engine.model.encoder import Encoder
from pipeline.engine.model.int8 import attention_dtype, quantise_decoder, quantise_encoder
from pipeline.engine.model.layers import Weights
from pipeline.engine.model.log_mel import Features, LogMel
from pipeline.engine.model.shape import Shape
from pipeline.engine.model.snapshot import Snapshot
from pipeline.engine.model.vocabulary import Vocabulary, read_vocabulary
from pipeline.engine.model.weights import TORCH_DTYPES, read_weights


@dataclass(frozen=True, kw_only=True)
class Model:
    """Weights are on `device`; nothing in here changes after loading.

    dtype: float32, bfloat16, float16 or int8 (linear maps in int8, all else in float32). torch_dtype: of
    activations.
    """

    shape: Shape
    vocabulary: Vocabulary
    features: Features
    encoder: Encoder
    decoder: Decoder
    device: torch.device
    dtype: str

    @property
    def torch_dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.dtype]

    @property
    def memory_dtype(self) -> torch.dtype:
        """Of the keys and values that cross-attention reads."""
        return attention_dtype() if self.dtype == "int8" else self.torch_dtype


def load_model(snapshot: Snapshot, *, device: torch.device, dtype: str) -> Model:
    """Reads weights and ids. Raises ModelNotFound where the tokeniser lacks an id that decoding needs."""
    # Scales are folded into weights in float32, so the cast to a smaller type comes after.
    return build_model(snapshot, read_weights(snapshot), device=device, dtype=dtype)


def build_model(snapshot: Snapshot, weights: Weights, *, device: torch.device, dtype: str) -> Model:
    """A model of float32 weights by their names."""
    shape = Shape.from_config(snapshot.config)
    vocabulary = read_vocabulary(snapshot)
    encoder, decoder = Encoder(weights, shape), Decoder(weights, shape)
    if dtype == "int8":
        quantise_encoder(encoder)
        quantise_decoder(decoder)
    elif device.type == "cpu" and dtype == "float32" and packed.is_supported():
        packed.pack_linears(decoder, skip=None if packed.is_best_for_many_rows() else "memory_kv")
        if packed.is_best_for_many_rows():
            packed.pack_linears(encoder, skip=None)
    return Model(
        shape=shape,
        vocabulary=vocabulary,
        features=LogMel(shape.num_mels, shape.num_frames, device),
        encoder=encoder.to(device, TORCH_DTYPES[dtype]),
        decoder=decoder.to(device, TORCH_DTYPES[dtype]),
        device=device,
        dtype=dtype,
    )
