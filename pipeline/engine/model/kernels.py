"""Triton kernels: whether one is used on a device."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch

from pipeline.errors import one_line


@cache
def has_kernel(name: str, device: torch.device) -> bool:
    """Whether the module `name` of a kernel is to be used on a device: one that runs there and is right.

    Its `check` is asked, once. On a CUDA device where it is no good, a warning says why: Triton needs a C
    compiler beside the driver, which some images lack. A module of a kernel imports `triton`, so it is
    imported here alone and by whoever was told that it is good.
    """
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    try:
        if import_module(name).check(device):
            return True
        reason = "its results are wrong here"
    except Exception as error:  # compilers and drivers fail in many ways; the slower way always works
        reason = f"{type(error).__name__}: {one_line(error)}"
    warnings.warn(
        f"without the Triton kernel {name.rpartition('.')[2]}: {reason}", RuntimeWarning, stacklevel=2
    )
    return False


def is_block(size: int) -> bool:
    """Whether a kernel can take `size` numbers as one block: a power of two from 16 on."""
    return size >= 16 and size & (size - 1) == 0
