"""The model: a WhisperForConditionalGeneration, how it starts, and a forward pass for windows of any length.

transformers' own forward wants 30 s of features and returns no attention weights under SDPA; `encode` and
`decode` run the same modules on shorter windows at any position, and return the weights that training guides.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import (
    WhisperAttention,
    WhisperDecoderLayer,
    WhisperEncoderLayer,
)

from pipeline.demo.tokens import NUM_TIMESTAMPS, Vocabulary

GUIDED_LAYERS = (1, 2, 3)
GUIDED_HEADS = (0, 1)
PHONEME_LAYER = 3  # encoder layers below the phoneme head
FIRST_NEAR_LAYER = 2  # from here on encoder layers are to attend to their neighbourhood


def build_model(
    ids: Vocabulary, *, dim: int = 128, encoder_layers: int = 6, decoder_layers: int = 4, heads: int = 4
) -> WhisperForConditionalGeneration:
    """A freshly initialised model with Whisper's architecture."""
    config = WhisperConfig(
        vocab_size=ids.size,
        num_mel_bins=80,
        d_model=dim,
        encoder_layers=encoder_layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=4 * dim,
        decoder_layers=decoder_layers,
        decoder_attention_heads=heads,
        decoder_ffn_dim=4 * dim,
        max_source_positions=1500,
        max_target_positions=448,
        init_std=0.06,
        pad_token_id=ids.end,
        bos_token_id=ids.end,
        eos_token_id=ids.end,
        decoder_start_token_id=ids.start,
        begin_suppress_tokens=None,
        suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    _initialise(model, ids)
    return model


@torch.no_grad()
def _initialise(model: WhisperForConditionalGeneration, ids: Vocabulary) -> None:
    """Timestamps start as the sinusoid of the encoder position they name; convolutions start larger."""
    encoder, decoder = model.model.encoder, model.model.decoder
    for conv in (encoder.conv1, encoder.conv2):
        nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    sinusoids = encoder.embed_positions.weight
    last = ids.first_timestamp + NUM_TIMESTAMPS
    decoder.embed_tokens.weight[ids.first_timestamp : last - 1] = 0.08 * sinusoids
    decoder.embed_tokens.weight[last - 1] = 0.08 * sinusoids[-1]
    steps = decoder.embed_positions.weight.shape[0]
    decoder.embed_positions.weight.copy_(0.08 * sinusoids[:steps])


class Encoded(NamedTuple):
    """output and low [B, T, D], low being under the phoneme head; watched [B, heads, Q, T] of near layers."""

    output: Tensor
    low: Tensor
    watched: list[Tensor]


def encode(
    model: WhisperForConditionalGeneration, mel: Tensor, positions: Tensor, queries: Tensor | None = None
) -> Encoded:
    """Encode mel [B, 80, 2T] at encoder positions [B, T]; `queries` [Q] are the frames to watch."""
    encoder = model.model.encoder
    x = F.gelu(encoder.conv1(mel))
    x = F.gelu(encoder.conv2(x)).transpose(1, 2)
    x = x + encoder.embed_positions(positions)
    low, watched = x, []
    for index, layer in enumerate(encoder.layers):
        h = layer.self_attn_layer_norm(x)
        x = x + _attend(layer.self_attn, h, h)[0]
        if queries is not None and index >= FIRST_NEAR_LAYER:
            watched.append(_weights(*_project(layer.self_attn, h[:, queries], h)[:2]))
        x = x + _feed_forward(layer, x)
        if index + 1 == PHONEME_LAYER:
            low = x
    return Encoded(encoder.layer_norm(x), low, watched)


def decode(
    model: WhisperForConditionalGeneration, tokens: Tensor, positions: Tensor, memory: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Tokens and positions [B, U] over memory [B, T, D]: the output [B, U, D] and the cross-attention weights
    [B, heads, U, T] of the guided layers."""
    decoder = model.model.decoder
    x = decoder.embed_tokens(tokens) + F.embedding(positions, decoder.embed_positions.weight)
    weights = []
    for index, layer in enumerate(decoder.layers):
        h = layer.self_attn_layer_norm(x)
        x = x + _attend(layer.self_attn, h, h, causal=True)[0]
        h = layer.encoder_attn_layer_norm(x)
        crossed, guided = _attend(layer.encoder_attn, h, memory, explicit=index in GUIDED_LAYERS)
        x = x + crossed
        x = x + _feed_forward(layer, x)
        if guided is not None:
            weights.append(guided)
    return decoder.layer_norm(x), weights


def _feed_forward(layer: WhisperEncoderLayer | WhisperDecoderLayer, x: Tensor) -> Tensor:
    return layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))


def _attend(
    attention: WhisperAttention, x: Tensor, source: Tensor, *, causal: bool = False, explicit: bool = False
) -> tuple[Tensor, Tensor | None]:
    q, k, v = _project(attention, x, source)
    if explicit:
        weights = _weights(q, k)
        out = weights.to(v.dtype) @ v
    else:
        weights, out = None, F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return attention.out_proj(out.transpose(1, 2).flatten(2)), weights


def _project(attention: WhisperAttention, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pairs = ((attention.q_proj, x), (attention.k_proj, source), (attention.v_proj, source))
    q, k, v = (
        projection(y).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for projection, y in pairs
    )
    return q, k, v


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).float().softmax(-1)
