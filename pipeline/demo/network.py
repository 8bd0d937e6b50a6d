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
NEAR_FRAMES = 100  # 2 s
_QUERY_STRIDE = 4


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


class Thinning(NamedTuple):
    """Positions that the encoder drops after layer number `after_layer` (from 1): `num_kept` stay, those of
    the largest `priority` [B, T] or, where it is None, those that receive most attention in that layer."""

    after_layer: int
    num_kept: int
    priority: Tensor | None


class Watched(NamedTuple):
    """Attention weights [B, heads, Q, K] from the frames `queries` [B, Q] to the frames `keys` [B, K]."""

    weights: Tensor
    queries: Tensor
    keys: Tensor


class Encoded(NamedTuple):
    """output [B, K, D], of the frames `kept` [B, K]; low [B, L, D] under the phoneme head, of the frames
    `low_kept` [B, L]; what each encoder layer attends to."""

    output: Tensor
    kept: Tensor
    low: Tensor
    low_kept: Tensor
    watched: list[Watched]


def encode(
    model: WhisperForConditionalGeneration,
    mel: Tensor,
    positions: Tensor,
    *,
    num_watched: int = 0,
    thinning: Thinning | None = None,
    near: bool = False,
) -> Encoded:
    """Encode mel [B, 80, 2T] at encoder positions [B, T], watching `num_watched` frames of each window.

    With `near`, attention ends 100 to 300 frames away, at a fifth of its cost in a full window. Layers of
    fewer than 300 frames, or whose number no 100 divides, are attended to as a whole.
    """
    encoder = model.model.encoder
    x = F.gelu(encoder.conv1(mel))
    x = F.gelu(encoder.conv2(x)).transpose(1, 2)
    x = x + encoder.embed_positions(positions)
    kept = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    low, low_kept, watched = x, kept, []
    for number, layer in enumerate(encoder.layers, start=1):
        h = layer.self_attn_layer_norm(x)
        x = x + (_attend_near(layer.self_attn, h) if near else _attend(layer.self_attn, h, h)[0])
        if num_watched:
            at = torch.arange(num_watched, device=x.device) * x.shape[1] // num_watched
            watched.append(Watched(_weights(*_project(layer.self_attn, h[:, at], h)[:2]), kept[:, at], kept))
        x = x + _feed_forward(layer, x)
        if number == PHONEME_LAYER:
            low, low_kept = x, kept
        if thinning is not None and number == thinning.after_layer:
            priority = _received(layer.self_attn, h) if thinning.priority is None else thinning.priority
            kept = priority.topk(thinning.num_kept).indices.sort().values
            x = x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[2]))
    return Encoded(encoder.layer_norm(x), kept, low, low_kept, watched)


@torch.no_grad()
def _received(attention: WhisperAttention, h: Tensor) -> Tensor:
    """The attention that each frame of h [B, T, D] receives from every fourth one: [B, T]."""
    return _weights(*_project(attention, h[:, ::_QUERY_STRIDE], h)[:2]).sum((1, 2))


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


def _attend_near(attention: WhisperAttention, x: Tensor) -> Tensor:
    """Self-attention of x [B, T, D] in chunks of frames, each to itself and those beside it: [B, T, D]."""
    num_windows, num_frames, _ = x.shape
    num_chunks, rest = divmod(num_frames, NEAR_FRAMES)
    if rest or num_chunks < 3:
        return _attend(attention, x, x)[0]
    middle = torch.arange(num_chunks, device=x.device).clamp(1, num_chunks - 2)
    q, k, v = (
        y.unflatten(2, (num_chunks, NEAR_FRAMES)).transpose(1, 2) for y in _project(attention, x, x)
    )  # [B, chunks, heads, frames, width]
    k, v = (torch.cat([y[:, middle - 1], y[:, middle], y[:, middle + 1]], dim=3) for y in (k, v))
    with torch.autocast(x.device.type, enabled=False):  # it would take the softmax to float32
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1)
    out = (weights @ v).flatten(0, 1)
    return attention.out_proj(out.transpose(1, 2).reshape(num_windows, num_frames, -1))


def _project(attention: WhisperAttention, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pairs = ((attention.q_proj, x), (attention.k_proj, source), (attention.v_proj, source))
    q, k, v = (
        projection(y).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for projection, y in pairs
    )
    return q, k, v


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).float().softmax(-1)
