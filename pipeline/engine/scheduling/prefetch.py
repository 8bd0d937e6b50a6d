"""Features made before they are needed, so that copies and transforms run beside the model on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.model.log_mel import Features


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The features of one window, [num_mels, frames]. made: when they are there; None: they are."""

    mel: Tensor
    made: torch.cuda.Event | None


class Prefetch:
    """Makes features on a stream of its own; on a CPU, which has one queue for all, at once."""

    def __init__(self, features: Features, device: torch.device) -> None:
        self._features, self._device = features, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def prepare(self, samples: np.ndarray) -> Prepared:
        """Starts the features of a window and does not wait for them."""
        if self._stream is None:
            return Prepared(mel=self._features([samples])[0], made=None)
        with torch.cuda.stream(self._stream):
            mel = self._features([samples])[0]
            made = torch.cuda.Event()
            made.record(self._stream)
        return Prepared(mel=mel, made=made)

    def collect(self, windows: Sequence[np.ndarray], prepared: Sequence[Prepared | None]) -> Tensor:
        """Features of all windows, [windows, num_mels, frames], those that are missing made now."""
        missing = [samples for samples, one in zip(windows, prepared, strict=True) if one is None]
        made_now = iter(self._features(missing) if missing else ())
        return torch.stack([next(made_now) if one is None else self._take(one) for one in prepared])

    def _take(self, one: Prepared) -> Tensor:
        if one.made is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(one.made)
            one.mel.record_stream(stream)  # its memory is the other stream's, and must not go back too early
        return one.mel
