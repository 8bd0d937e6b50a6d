"""Weights, device and number type of a model whose files were found."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.engine.model import int8
from pipeline.engine.model.snapshot import Snapshot
from pipeline.engine.options import DTYPES

# What tensors are stored and added up in; int8 is the linear maps' type alone.
TORCH_DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "int8": torch.float32,
}
assert set(TORCH_DTYPES) == set(DTYPES)


def read_weights(snapshot: Snapshot) -> dict[str, Tensor]:
    """Every tensor of the model by its name: float32, on the CPU."""
    return {name: torch.from_numpy(tensor.float32()) for name, tensor in snapshot.tensors.items()}


def pick_device(device: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `cuda:N`. Raises ValueError when it is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.split(":", maxsplit=1)[0] not in {"cpu", "cuda"}:
        raise ValueError(f"device is {device!r}; it may be auto, cpu, cuda or cuda:N")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r} and this machine has no CUDA device")
    return chosen


def pick_dtype(dtype: str, device: torch.device) -> str:
    """The type to compute in; `auto` is bfloat16 on CUDA and float32 on a CPU.

    Raises ValueError for a type that is unknown or that the device cannot do.
    """
    if dtype == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it may be auto, {', '.join(DTYPES)}")
    if dtype == "int8" and (device.type != "cpu" or not int8.is_supported()):
        raise ValueError("dtype is 'int8'; it may be that on an x86 CPU only")
    return dtype
