"""Decoded frames at their times: what a recorder left out is silence, so that times are the container's."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from math import isfinite

import numpy as np

from pipeline.reading.blocks import Block

HOLE_S = 0.2  # time stamps jitter by less; what is missing for longer was not recorded
RESET_S = 1.0  # time stamps that step back by more begin anew, as where files were joined
MAX_HOLE_S = 3600.0
SILENCE_FRAMES = 65_536


def on_the_clock(
    timed: Iterator[tuple[float | None, Block]], *, from_s: float, to_s: float, last_s: float
) -> Generator[Block, None, bool]:
    """Blocks without a gap from `from_s` to `to_s`; returns whether they got there.

    timed: each block with the time of its first sample, None where the container does not say. What lies
    before `from_s` is left out. last_s: no time stamp behind it is believed; where it is infinite, since
    nothing says how long the recording is, no hole of more than `MAX_HOLE_S` is.
    """
    now_s, shift_s, started = from_s, 0.0, False
    for at_s, whole in timed:
        block = whole
        most_s = last_s - now_s if isfinite(last_s) else MAX_HOLE_S
        late_s = 0.0 if at_s is None else at_s + shift_s - now_s
        if (late_s < -RESET_S and (started or from_s == 0)) or late_s > most_s:
            shift_s, late_s = shift_s - late_s, 0.0
        if late_s > (HOLE_S if started else 0):
            hole_s = min(late_s, to_s - now_s)
            yield from _silence(round(hole_s * block.rate), block)
            now_s += hole_s
        elif late_s < 0 and not started:
            block = _cut(block, round(-late_s * block.rate), len(block.samples))
        left = round(min(to_s - now_s, 1e6) * block.rate)
        block = _cut(block, 0, left)
        started = started or len(block.samples) > 0
        now_s += len(block.samples) / block.rate
        if len(block.samples):
            yield block
        if left <= len(block.samples):
            return True
    return False


def _cut(block: Block, first: int, end: int) -> Block:
    whole = first <= 0 and end >= len(block.samples)
    return block if whole else Block(samples=block.samples[first:end], rate=block.rate)


def _silence(num_frames: int, like: Block) -> Iterator[Block]:
    """Zeros at the rate and with the channels of a block."""
    zeros = np.zeros((min(num_frames, SILENCE_FRAMES), like.samples.shape[1]), np.int16)
    for first in range(0, num_frames, SILENCE_FRAMES):
        yield Block(samples=zeros[: num_frames - first], rate=like.rate)
