"""int8 linear maps and convolutions for x86 CPUs, with one activation scale per row.

torch's dynamic quantisation scales a whole tensor at once, so that a transcript would depend on its
neighbours. Here every row is divided by its own peak and rounded to 8 bits around 128; the products are added
up exactly, in integers, and scaled back row by row. So a row's output is bit for bit the same in any company.

Weights use 8 bits where the processor adds products in 32 bits (VNNI), and 7 where it adds two of them in 16
first: 2 * 255 * 63 is the most that fits.

The encoder's products are oneDNN's. A decoder's step has few rows, for which FBGEMM takes 0.6 to 1 of its
time, and 0.15 to 0.8 without VNNI. torch 2.13 warns that FBGEMM will go; without it all are oneDNN's.

Where the processor multiplies bfloat16 (AVX512_BF16) attention to the encoder's positions does so too: on an
EPYC it takes 0.67 of float32's time in the encoder and 0.72 in the decoder, which reads half as much.
"""

from __future__ import annotations

import platform
import warnings
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.engine.model.decoder import Decoder
from pipeline.engine.model.encoder import Encoder, EncoderLayer
from pipeline.engine.model.layers import Linear
from pipeline.engine.model.packed import FEW_ROWS

MEMORY = "memory_kv"  # of `DecoderLayer`
# The product of float32 rows, which it quantises by one scale, with packed weights.
FBGEMM = "linear_with_input_q_dq_qweight_dq_output_fp32"
STEPS = 127
STEPS_WITHOUT_VNNI = 63
ZERO = 128
SMALLEST_PEAK = 1e-12
BLOCK = 128  # rows quantised at a time, so that they stay in the cache between the passes over them
QUERIES = 500  # of one head that attend at a time, likewise


class Int8Linear(nn.Module):
    """y = x W^T + b with W in int8 and x quantised row by row; inputs and outputs are float32."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        quantised, self._scales = quantise_weight(linear.weight)
        self._packed = torch.ops.onednn.qlinear_prepack(quantised, [FEW_ROWS, linear.weight.shape[1]])
        self._zeros = torch.zeros(len(self._scales), dtype=torch.long)
        self._bias = torch.zeros(()) if linear.bias is None else linear.bias

    def forward(self, x: Tensor) -> Tensor:
        quantised, peaks = quantise_rows(x.reshape(-1, x.shape[-1]))
        y = torch.ops.onednn.qlinear_pointwise(
            quantised, 1.0 / STEPS, ZERO, self._packed, self._scales, self._zeros, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        torch.addcmul(self._bias, y, peaks, out=y)
        return y.view(*x.shape[:-1], -1)


class FewRowsInt8Linear(nn.Module):
    """The same by FBGEMM."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self._packed = _pack_for_fbgemm(*quantise_weight(linear.weight))
        self._multiply = getattr(torch.ops.quantized, FBGEMM)
        self._bias = torch.zeros(()) if linear.bias is None else linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        peaks = peaks_of(rows)
        y = self._multiply(rows / peaks, 1.0 / STEPS, ZERO, self._packed)
        torch.addcmul(self._bias, y, peaks, out=y)
        return y.view(*x.shape[:-1], -1)


def quantise_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [out, in] -> int8 [out, in] and the scale of each row, float32 [out]."""
    steps = STEPS if torch.cpu._is_vnni_supported() else STEPS_WITHOUT_VNNI
    scales = peaks_of(weight).div_(steps)
    return (weight / scales).round_().to(torch.int8), scales.squeeze(1)


def _pack_for_fbgemm(weight: Tensor, scales: Tensor) -> torch.ScriptObject:
    zeros = torch.zeros(len(scales), dtype=torch.long)
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
            tensor = torch._make_per_channel_quantized_tensor(weight, scales.double(), zeros, 0)
            return torch.ops.quantized.linear_prepack(tensor, None)
    finally:
        torch.backends.quantized.engine = engine


class Int8Conv(nn.Module):
    """A convolution over three frames, padded by one, as a linear map of three frames side by side."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        assert (conv.kernel_size, conv.padding) == ((3,), (1,))
        self._stride = conv.stride[0]
        self._linear = Int8Linear(Linear(conv.weight.transpose(1, 2).flatten(1), conv.bias))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, frames] -> [batch, channels, frames / stride], both with frames in rows."""
        frames = F.pad(x.transpose(1, 2), (0, 0, 1, 1))
        batch, num_frames, channels = frames.shape
        triples = frames.as_strided(
            (batch, (num_frames - 2) // self._stride, 3 * channels),
            (num_frames * channels, self._stride * channels, 1),
        )
        return self._linear(triples).transpose(1, 2)


def attend_in_bfloat16(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`layers.attend` with products of bfloat16 numbers; all tensors and the result are float32."""
    out = torch.empty_like(q)
    for row, head in product(range(q.shape[0]), range(q.shape[1])):
        keys, values = k[row, head].bfloat16().T, v[row, head].bfloat16()
        for start in range(0, q.shape[2], QUERIES):
            block = slice(start, start + QUERIES)
            out[row, head, block] = (q[row, head, block].bfloat16() @ keys).softmax(-1) @ values
    return out


def quantise_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [rows, dim] -> uint8 [rows, dim] around 128, and each row's peak, float32 [rows, 1]."""
    if len(rows) <= BLOCK:
        return _quantise_block(rows)
    quantised, peaks = torch.empty(rows.shape, dtype=torch.uint8), torch.empty(len(rows), 1)
    for start in range(0, len(rows), BLOCK):
        stop = start + BLOCK
        quantised[start:stop], peaks[start:stop] = _quantise_block(rows[start:stop])
    return quantised, peaks


def peaks_of(rows: Tensor) -> Tensor:
    """The largest number of each row without its sign, float32 [rows, 1]; never zero."""
    return rows.abs().amax(-1, keepdim=True).clamp_(min=SMALLEST_PEAK)


def _quantise_block(rows: Tensor) -> tuple[Tensor, Tensor]:
    peaks = peaks_of(rows)
    # The conversion cuts the fraction off, so half a step more rounds.
    return (rows * (STEPS / peaks)).add_(ZERO + 0.5).to(torch.uint8), peaks


def is_supported() -> bool:
    """Whether this is an x86 processor and this build of torch has the kernels."""
    has_kernels = torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")
    return has_kernels and platform.machine().lower() in {"x86_64", "amd64"}


def has_fbgemm() -> bool:
    """Whether this build of torch has FBGEMM."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    return hasattr(torch.ops.quantized, FBGEMM)


def attention_dtype() -> torch.dtype:
    """Of attention's products beside int8 linear maps: bfloat16 where the processor multiplies it."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def quantise_encoder(encoder: Encoder) -> None:
    """Swaps linear maps and convolutions for their int8 form, and attention for bfloat16's where it pays."""
    quantise_linears(encoder)
    for name in ("conv1", "conv2"):
        setattr(encoder, name, Int8Conv(getattr(encoder, name)))
    if attention_dtype() == torch.bfloat16:
        for layer in encoder.layers:
            assert isinstance(layer, EncoderLayer)
            layer.attend = attend_in_bfloat16


def quantise_decoder(decoder: Decoder) -> None:
    """Swaps linear maps for their int8 form: of few rows but for the memory, which has many."""
    quantise_linears(decoder, FewRowsInt8Linear if has_fbgemm() else Int8Linear)


def quantise_linears(
    module: nn.Module, kind: type[Int8Linear] | type[FewRowsInt8Linear] = Int8Linear
) -> None:
    """Swaps every linear map below a module, in this instance only, for its int8 form; kind: of few rows."""
    for name, child in module.named_children():
        if isinstance(child, Linear):
            setattr(module, name, (Int8Linear if name == MEMORY else kind)(child))
        else:
            quantise_linears(child, kind)
