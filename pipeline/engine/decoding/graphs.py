"""CUDA graphs for the decoder's step: a small model's step is bound by its launches, not its arithmetic.

A graph replays the very kernels on the very memory that it was captured with. So whoever runs a step through
`StepGraphs` keeps its tensors in place, and lets a step depend on nothing but them and the key.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engine.decoding.tasks import Decoding
from pipeline.errors import one_line

KEY_STEP = 64  # keys of the self-attention are looked at in multiples of this: a graph for each is captured
# The same without graphs: sums over whole vectors of a CPU are the same whatever zeros follow, so that what a
# window gets does not depend on the longest in its company.
PLAIN_KEY_STEP = 16


def padded_keys(longest: int, most: int, step: int = KEY_STEP) -> int:
    """The number of earlier tokens that a step looks at, where the longest row has `longest`."""
    return min(most, -(-longest // step) * step)


def step_graphs(device: torch.device) -> StepGraphs | None:
    """Graphs where the device has such."""
    return StepGraphs() if device.type == "cuda" else None


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A step that the device was given. slots: the windows that get a token, None where a slot is free."""

    slots: list[Decoding | None]
    on_host: Tensor
    done: torch.cuda.Event | None

    @classmethod
    def of(cls, slots: Sequence[Decoding | None], chosen: Tensor) -> Launched:
        """Starts the copy of `chosen` to the host; the step's next run may overwrite it then."""
        on_host = torch.empty_like(chosen, device="cpu", pin_memory=chosen.is_cuda)
        on_host.copy_(chosen, non_blocking=True)
        done = torch.cuda.Event() if chosen.is_cuda else None
        if done is not None:
            done.record(torch.cuda.current_stream(chosen.device))
        return cls(slots=list(slots), on_host=on_host, done=done)

    def chosen(self) -> Tensor:
        """What the step chose, once it is there."""
        if self.done is not None:
            self.done.synchronize()
        return self.on_host


class StepGraphs:
    """Runs a step as it is the first time, captures it the second time, and replays it from then on.

    The first run is a step like any other, so warming up costs nothing and nothing must be undone. Where a
    step cannot be captured it is run as it is, with one warning.
    """

    def __init__(self) -> None:
        self._seen: set[Hashable] = set()
        self._captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._works = True

    def run(self, key: Hashable, step: Callable[[], Tensor]) -> Tensor:
        """The step's result, which the next run overwrites.

        key: all that decides which kernels run on which shapes. step: no transfer to or from the host, no
        memory that does not outlive this object, no other effect.
        """
        if key in self._captured:
            graph, result = self._captured[key]
            graph.replay()
            return result
        if not self._works or key not in self._seen:
            self._seen.add(key)
            return step()
        return self._capture(key, step)

    def _capture(self, key: Hashable, step: Callable[[], Tensor]) -> Tensor:
        pool = next(iter(self._captured.values()))[0].pool() if self._captured else None
        try:
            graph = torch.cuda.CUDAGraph()
            torch.cuda.synchronize()
            # Other threads may copy their windows to the device meanwhile.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                result = step()
        except RuntimeError as error:
            self._works = False
            reason = one_line(error, slice(1))
            warnings.warn(f"decoding without CUDA graphs: {reason}", RuntimeWarning, stacklevel=2)
            return step()
        self._captured[key] = graph, result
        graph.replay()
        return result
