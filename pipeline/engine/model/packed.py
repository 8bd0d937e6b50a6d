"""Linear maps on a CPU whose weights are packed once for oneDNN instead of anew by every product.

A decoder step multiplies a handful of rows with every weight. Measured at 8 rows of whisper-tiny, caches cold
as they are inside a step: the whole step 35.9 ms with MKL's F.linear, 29.3 ms with only the logits packed.
Many rows (the encoder, the memory projection) depend on the maker: on an Intel processor they are faster
unpacked, by MKL; on an AMD one (EPYC with AVX-512) 1500 rows of whisper-tiny's MLP took 19.7 ms by MKL and
16.8 ms packed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.engine.model.layers import Linear

FEW_ROWS = 8  # what the packing is laid out for; any number of rows may follow


class PackedLinear(nn.Module):
    """y = x W^T + b in float32 for inputs of any leading shape."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.contiguous(), FEW_ROWS)
        self._bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")


def is_supported() -> bool:
    """Whether this build of torch has the kernels."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
def is_best_for_many_rows() -> bool:
    """Whether the encoder is faster packed: MKL has its best kernels for Intel's processors alone."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "AuthenticAMD" in cpuinfo.read_text()


def pack_linears(module: nn.Module, *, skip: str | None) -> None:
    """Swaps every linear map below one module for its packed form, except those named `skip`."""
    for name, child in module.named_children():
        if isinstance(child, Linear) and name != skip:
            setattr(module, name, PackedLinear(child))
        elif not isinstance(child, Linear):
            pack_linears(child, skip=skip)
