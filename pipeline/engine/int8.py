"""int8 linear maps for x86 CPUs (FBGEMM), with one activation scale per row.

torch's dynamic quantisation scales a whole tensor at once, so that a transcript would depend on its
neighbours. Here every row is divided by its own peak first, and one more row pins the tensor's range to
-1..1: the scale that FBGEMM picks is the same for every call, its sums are exact integers, and a row's output
is bit for bit the same in any company.

Weights use 7 bits, activations 8: without VNNI the kernels add two products in 16 bits, and 2 * 255 * 63 is
the most that fits. Activations have the outliers, so they keep the eighth bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.engine.layers import Linear

WEIGHT_STEPS = 63
BACKEND = "fbgemm"


class Int8Linear(nn.Module):
    """y = x W^T + b with W in int8 and x quantised row by row; inputs and outputs are float32."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        scales = linear.weight.abs().amax(1).clamp(min=1e-12).double() / WEIGHT_STEPS
        with _fbgemm():
            zeros = torch.zeros(len(scales), dtype=torch.long)
            quantised = torch.quantize_per_channel(linear.weight, scales, zeros, 0, torch.qint8)
            self._packed = torch.ops.quantized.linear_prepack(quantised, None)
        self._bias = torch.zeros(()) if linear.bias is None else linear.bias
        self._range = torch.zeros(linear.weight.shape[1])
        self._range[0], self._range[1] = 1.0, -1.0

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        peaks = torch.maximum(rows.amax(-1, keepdim=True), rows.amin(-1, keepdim=True).neg_())
        peaks.clamp_(min=1e-12)
        scaled = rows.new_empty(len(rows) + 1, rows.shape[1])
        torch.div(rows, peaks, out=scaled[:-1])
        scaled[-1] = self._range
        y = torch.ops.quantized.linear_dynamic(scaled, self._packed, False)[:-1]
        torch.addcmul(self._bias, y, peaks, out=y)
        return y.view(*x.shape[:-1], -1)


def is_supported() -> bool:
    """Whether this build of torch has the kernels."""
    return BACKEND in torch.backends.quantized.supported_engines


def quantise_linears(module: nn.Module) -> None:
    """Swaps every linear map below a module, in this instance only, for its int8 form."""
    for name, child in module.named_children():
        if isinstance(child, Linear):
            setattr(module, name, Int8Linear(child))
        else:
            quantise_linears(child)


@contextmanager
def _fbgemm() -> Iterator[None]:
    """Packs for FBGEMM; the packed weights remember it, so the setting need not stay.

    torch announces the end of quantised tensors; a release without them is outside the tested range.
    """
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = BACKEND
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            yield
    finally:
        torch.backends.quantized.engine = before
