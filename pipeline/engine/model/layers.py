"""The pieces that encoder and decoder share: linear maps from named weights, heads, attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Weights = dict[str, Tensor]
FEW_QUERIES = 8


class Linear(nn.Module):
    """y = x W^T + b for inputs of any leading shape. weight: [out, in]; bias: [out] or None."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def linear(weights: Weights, name: str) -> Linear:
    return Linear(weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def fused_linear(weights: Weights, names: list[str], scales: list[float]) -> Linear:
    """One map that gives the outputs of several, each scaled, side by side; a missing bias is zero."""
    matrices = [weights[f"{name}.weight"] * scale for name, scale in zip(names, scales, strict=True)]
    biases = [
        weights.get(f"{name}.bias", matrix.new_zeros(len(matrix))) * scale
        for name, matrix, scale in zip(names, matrices, scales, strict=True)
    ]
    return Linear(torch.cat(matrices), torch.cat(biases))


def layer_norm(weights: Weights, name: str) -> nn.LayerNorm:
    norm = nn.LayerNorm(len(weights[f"{name}.weight"]), device="meta")
    norm.weight = nn.Parameter(weights[f"{name}.weight"], requires_grad=False)
    norm.bias = nn.Parameter(weights[f"{name}.bias"], requires_grad=False)
    return norm


class MLP(nn.Module):
    """Norm, widen, GELU (erf), narrow, added to the input."""

    def __init__(self, weights: Weights, prefix: str) -> None:
        super().__init__()
        self.norm = layer_norm(weights, f"{prefix}.final_layer_norm")
        self.widen = linear(weights, f"{prefix}.fc1")
        self.narrow = linear(weights, f"{prefix}.fc2")

    def forward(self, x: Tensor) -> Tensor:
        wide = self.widen(self.norm(x))
        torch.ops.aten.gelu_(wide)  # in place: on a CPU a second block this large costs more than the GELU
        return x + self.narrow(wide)


def split_heads(x: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """[batch, time, parts * dim] -> `parts` tensors [batch, heads, time, head_dim].

    On a CPU they are contiguous; on a GPU they are views, since attention is as fast on these.
    """
    batch, time, _ = x.shape
    heads = x.view(batch, time, parts, num_heads, -1).permute(2, 0, 3, 1, 4)
    return (heads if x.is_cuda else heads.contiguous()).unbind(0)


def merge_heads(x: Tensor) -> Tensor:
    """[batch, heads, time, head_dim] -> [batch, time, dim]."""
    return x.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Softmax attention; the scale is already in q (it is folded into the query weights). mask: bool."""
    if not q.is_cuda and not causal and q.shape[2] <= FEW_QUERIES:
        return _attend_few(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=1.0)


def _attend_few(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """A step's attention on a CPU: as two products it takes 0.8 of the time of torch's kernel for it.

    And with several threads that kernel cuts the keys otherwise for every number of rows, so that what a
    window gets would depend on its company.
    """
    scores = q @ k.transpose(2, 3)
    if mask is not None:
        scores = scores.masked_fill_(~mask, float("-inf"))
    return scores.softmax(-1) @ v
