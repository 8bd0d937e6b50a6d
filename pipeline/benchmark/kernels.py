"""The kernels of one encoder pass and of one decoder step: how many, how long, and the gaps between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.benchmark.machine import launch_s, replayed_launch_s
from pipeline.benchmark.roofline import LaunchCounts
from pipeline.engine.decoding.graphs import KEY_STEP
from pipeline.engine.decoding.rules import Rules
from pipeline.engine.decoding.slots import Slots
from pipeline.engine.decoding.tasks import Task
from pipeline.engine.model.whisper import Model

NUM_SHOWN = 12
WARM_STEPS = 4  # a graph is captured at the second step and replayed from the third on


class CountOperations(TorchDispatchMode):
    """Counts operations that compute: those that only view their input start no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returns = func._schema.returns
        is_view = any(one.alias_info is not None and not one.alias_info.is_write for one in returns)
        self.number += not is_view
        return func(*args, **(kwargs or {}))


class Operations:
    """One model at one batch size, ready to encode a batch and to decode a step at a time."""

    def __init__(self, model: Model, batch_size: int) -> None:
        self._model = model
        self._mel = torch.randn(batch_size, model.shape.num_mels, model.shape.num_frames, device=model.device)
        rules = Rules(model.vocabulary, model.device, timestamps=False)
        self._slots = Slots(model, rules, size=batch_size, num_positions=model.shape.source_positions)
        prompt = tuple(model.vocabulary.start_sequence("en", "transcribe", timestamps=False))
        most = model.shape.target_positions - len(prompt)
        tasks = [Task(index=i, prompt=prompt, start=0, max_new_tokens=most) for i in range(batch_size)]
        self._slots.start(self._slots.load(self.encode().unbind(0)), tasks)

    def encode(self) -> torch.Tensor:
        """The batch through the encoder, dense."""
        return self._model.encoder(self._mel)

    def step(self) -> None:
        """One token in every slot."""
        self._slots.step()

    def step_alone(self) -> None:
        """The same outside of a graph, and without what the host does with it."""
        self._slots.advance(KEY_STEP, is_drawn=False)


@torch.inference_mode()
def count_launches(model: Model, batch_size: int) -> LaunchCounts:
    """Kernels of the dense encoder and of a step, counted as operations, and what a launch costs here."""
    operations = Operations(model, batch_size)
    counts = {}
    for name, run in (("encode", operations.encode), ("step", operations.step_alone)):
        with CountOperations() as counted:
            run()
        counts[name] = counted.number
    return LaunchCounts(
        **counts, encode_launch_s=launch_s(model.device), step_launch_s=replayed_launch_s(model.device)
    )


@torch.inference_mode()
def profile_kernels(model: Model, batch_size: int) -> dict[str, Any]:
    """Where the time of one encoder pass and of one (replayed) step goes.

    Each has wall_s, busy_s (of the kernels), gaps_s, num_kernels and the kernels that take longest.
    """
    operations = Operations(model, batch_size)
    operations.encode()
    for _ in range(WARM_STEPS):
        operations.step()
    return {
        "batch_size": batch_size,
        "encode": _profiled(operations.encode, model.device),
        "step": _profiled(operations.step, model.device),
    }


def _profiled(run: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    is_cuda = device.type == "cuda"
    wall_s = float(np.median([_wall_s(run, is_cuda) for _ in range(3)]))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities) as profiler:
        _wall_s(run, is_cuda)
    kernels = sorted(
        (
            {
                "kernel": event.key[:120],
                "calls": event.count,
                "seconds": (event.self_device_time_total if is_cuda else event.self_cpu_time_total) / 1e6,
            }
            for event in profiler.key_averages()
            if not is_cuda or event.device_type == DeviceType.CUDA  # an operation's time is its kernels'
        ),
        key=lambda kernel: -kernel["seconds"],
    )
    kernels = [kernel for kernel in kernels if kernel["seconds"] > 0]
    busy_s = sum(kernel["seconds"] for kernel in kernels)
    return {
        "wall_s": wall_s,
        "busy_s": busy_s,
        "gaps_s": max(0.0, wall_s - busy_s),
        "num_kernels": sum(kernel["calls"] for kernel in kernels),
        "longest": kernels[:NUM_SHOWN],
    }


def _wall_s(run: Callable[[], Any], is_cuda: bool) -> float:
    started = time.perf_counter()
    run()
    if is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
