"""Whisper's encoder in parts that a sparsifying pass can stop between.

Knows nothing about which positions are kept: `sparsify` chooses, and `EncoderLayer.forward` takes the choice.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.engine.model.layers import (
    MLP,
    Weights,
    attend,
    fused_linear,
    layer_norm,
    linear,
    merge_heads,
    split_heads,
)
from pipeline.engine.model.shape import Shape

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class EncoderLayer(nn.Module):
    """Self-attention and MLP; all that follows the attention can be asked for some positions only."""

    def __init__(self, weights: Weights, prefix: str, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attend: Attend = attend
        attention = f"{prefix}.self_attn"
        self.norm = layer_norm(weights, f"{prefix}.self_attn_layer_norm")
        self.qkv = fused_linear(
            weights, [f"{attention}.{part}_proj" for part in "qkv"], [head_dim**-0.5, 1.0, 1.0]
        )
        self.out = linear(weights, f"{attention}.out_proj")
        self.mlp = MLP(weights, prefix)

    def forward(self, x: Tensor) -> Tensor:
        """x: [batch, time, dim] -> the same shape."""
        return self.finish(x, *self.project(x))

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Scaled queries, keys and values: [batch, heads, time, head_dim] each, contiguous."""
        return split_heads(self.qkv(self.norm(x)), 3, self.num_heads)

    def finish(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The rest of the layer for the positions in x and q, which may be fewer than those in k and v."""
        return self.mlp(x + self.out(merge_heads(self.attend(q, k, v))))


class Encoder(nn.Module):
    """Features to hidden states: `stem`, then layers, then `norm`."""

    positions: Tensor

    def __init__(self, weights: Weights, shape: Shape) -> None:
        super().__init__()
        prefix = "model.encoder"
        self.conv1 = _conv(weights, f"{prefix}.conv1", stride=1)
        self.conv2 = _conv(weights, f"{prefix}.conv2", stride=2)
        self.register_buffer("positions", weights[f"{prefix}.embed_positions.weight"])
        self.layers = nn.ModuleList(
            EncoderLayer(weights, f"{prefix}.layers.{i}", shape.encoder_heads, shape.encoder_head_dim)
            for i in range(shape.encoder_layers)
        )
        self.norm = layer_norm(weights, f"{prefix}.layer_norm")

    def stem(self, mel: Tensor) -> Tensor:
        """mel: [batch, num_mels, frames] -> [batch, frames / 2, dim], positions added."""
        x = F.gelu(self.conv1(mel.to(self.positions.dtype)))
        x = F.gelu(self.conv2(x))
        # Without this copy every sum that follows would keep the transposed order, and every norm copy it.
        return x.transpose(1, 2).contiguous() + self.positions

    def run(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Layers start to stop - 1 (0-based)."""
        for layer in self.layers[start:stop]:
            x = layer(x)
        return x

    def forward(self, mel: Tensor) -> Tensor:
        """Dense: [batch, num_mels, frames] -> normed hidden states [batch, frames / 2, dim]."""
        return self.norm(self.run(self.stem(mel), 0, len(self.layers)))


def _conv(weights: Weights, name: str, *, stride: int) -> nn.Conv1d:
    weight = weights[f"{name}.weight"]
    conv = nn.Conv1d(weight.shape[1], weight.shape[0], 3, stride=stride, padding=1, device="meta")
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(weights[f"{name}.bias"], requires_grad=False)
    return conv
