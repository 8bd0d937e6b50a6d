"""Whisper's decoder: one pass over new tokens, with the attention to earlier ones left to a cache.

Knows nothing about which token is chosen: it turns tokens into logits.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from pipeline.engine.model.layers import (
    MLP,
    Linear,
    Weights,
    fused_linear,
    layer_norm,
    linear,
    merge_heads,
    split_heads,
)
from pipeline.engine.model.shape import Shape


class Cache(Protocol):
    """Keeps keys and values of earlier tokens and of the encoder's positions."""

    def attend_past(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Stores k and v, and attends with q to all tokens so far; [rows, heads, tokens, head_dim] each."""
        ...

    def attend_memory(self, layer: int, q: Tensor) -> Tensor:
        """Attends with q, [rows, heads, tokens, head_dim], to the encoder's positions."""
        ...


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder, MLP."""

    def __init__(self, weights: Weights, prefix: str, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        past, memory = f"{prefix}.self_attn", f"{prefix}.encoder_attn"
        scale = head_dim**-0.5
        self.past_norm = layer_norm(weights, f"{prefix}.self_attn_layer_norm")
        self.past_qkv = fused_linear(weights, [f"{past}.{part}_proj" for part in "qkv"], [scale, 1.0, 1.0])
        self.past_out = linear(weights, f"{past}.out_proj")
        self.memory_norm = layer_norm(weights, f"{prefix}.encoder_attn_layer_norm")
        self.memory_q = fused_linear(weights, [f"{memory}.q_proj"], [scale])
        self.memory_kv = fused_linear(weights, [f"{memory}.k_proj", f"{memory}.v_proj"], [1.0, 1.0])
        self.memory_out = linear(weights, f"{memory}.out_proj")
        self.mlp = MLP(weights, prefix)

    def project_memory(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of [rows, positions, dim], as views [rows, heads, positions, head_dim]."""
        rows, positions, _ = hidden.shape
        both = self.memory_kv(hidden).view(rows, positions, 2, self.num_heads, -1)
        return both.permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor, index: int, cache: Cache) -> Tensor:
        """x: [rows, tokens, dim] -> the same shape."""
        q, k, v = split_heads(self.past_qkv(self.past_norm(x)), 3, self.num_heads)
        x = x + self.past_out(merge_heads(cache.attend_past(index, q, k, v)))
        (q,) = split_heads(self.memory_q(self.memory_norm(x)), 1, self.num_heads)
        x = x + self.memory_out(merge_heads(cache.attend_memory(index, q)))
        return self.mlp(x)


class Decoder(nn.Module):
    """Tokens to hidden states, and hidden states to logits."""

    embedding: Tensor
    positions: Tensor

    def __init__(self, weights: Weights, shape: Shape) -> None:
        super().__init__()
        prefix = "model.decoder"
        embedding = weights[f"{prefix}.embed_tokens.weight"]
        self.register_buffer("embedding", embedding)
        self.register_buffer("positions", weights[f"{prefix}.embed_positions.weight"])
        self.layers = nn.ModuleList(
            DecoderLayer(weights, f"{prefix}.layers.{i}", shape.decoder_heads, shape.decoder_head_dim)
            for i in range(shape.decoder_layers)
        )
        self.norm = layer_norm(weights, f"{prefix}.layer_norm")
        self.unembed = Linear(embedding if shape.tied_logits else weights["proj_out.weight"])

    def forward(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """tokens, positions: int64 [rows, tokens] -> normed hidden states [rows, tokens, dim]."""
        x = self.embedding[tokens] + self.positions[positions]
        for index, layer in enumerate(self.layers):
            x = layer(x, index, cache)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, dim] -> float32 [rows, vocabulary]."""
        return self.unembed(hidden).float()
