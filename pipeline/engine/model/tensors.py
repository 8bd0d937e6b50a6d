"""A model's tensors as they lie in a file: mapped into memory, and read when they are asked for."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError

BFLOAT16 = "<u2"  # numpy has no such type; it is the upper half of a float32
SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16}
LFS_POINTER = b"version "  # how one begins


class ModelNotFound(UserError):
    """No usable model under this name or folder; the message is one line and says what to do."""


@dataclass(frozen=True)
class StoredTensor:
    """values: as stored. scale: what each row (or the whole) was multiplied by to make it integers."""

    values: np.ndarray
    scale: np.ndarray | None = None

    def rows(self, start: int, stop: int) -> StoredTensor:
        """Some rows, unread."""
        scale = self.scale if self.scale is None or self.scale.size == 1 else self.scale[start:stop]
        return StoredTensor(self.values[start:stop], scale)

    def first(self, num_values: int) -> np.ndarray:
        """The first values: float32 [num_values], or fewer where there are not as many."""
        width = max(1, math.prod(self.values.shape[1:]))
        return self.rows(0, -(-num_values // width)).float32().reshape(-1)[:num_values]

    def float32(self) -> np.ndarray:
        """A copy of the values, of the same shape."""
        if self.values.dtype == BFLOAT16:
            return (self.values.astype("<u4") << 16).view("<f4")
        values = self.values.astype("<f4")
        return values if self.scale is None else values / self.scale.reshape(-1, *[1] * (values.ndim - 1))


def map_file(path: Path) -> np.ndarray:
    """The bytes of a file of weights, mapped into memory. Raises ModelNotFound where it holds none."""
    if path.stat().st_size < len(LFS_POINTER):
        raise ModelNotFound(f"{path} is empty")
    mapped = np.memmap(path, np.uint8, "r")
    if mapped[: len(LFS_POINTER)].tobytes() == LFS_POINTER:
        raise ModelNotFound(f"{path} is a Git LFS pointer, not weights: `git lfs pull` brings them")
    return mapped


def map_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file: a length, a header in JSON, the values.

    Raises ModelNotFound for a file that is none, or is not whole.
    """
    mapped = map_file(path)
    size, length = len(mapped), int.from_bytes(mapped[:8].tobytes(), "little")
    try:
        header = json.loads(mapped[8 : 8 + length].tobytes() if length < size else b"")
        header.pop("__metadata__", None)
        expected = 8 + length + max(int(entry["data_offsets"][1]) for entry in header.values())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
        raise ModelNotFound(f"{path} is no safetensors file, or only its first {size} bytes") from exc
    if size != expected:
        raise ModelNotFound(f"{path} is not whole: {size} of {expected} bytes; fetch it again")
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in SAFETENSORS:
            raise ModelNotFound(f"{path}: {name} is {entry['dtype']}; must be {', '.join(SAFETENSORS)}")
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        values = mapped[start:stop].view(SAFETENSORS[entry["dtype"]])
        tensors[name] = StoredTensor(values.reshape(entry["shape"]))
    return tensors
