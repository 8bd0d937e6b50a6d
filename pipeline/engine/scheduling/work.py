"""What travels through the engine: windows, what is asked of them, and the calls that wait for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from pipeline.engine.decoding.tasks import Decoding
from pipeline.engine.scheduling.prefetch import Prepared
from pipeline.engine.sparsify.level import Level


@dataclass(kw_only=True)
class Work:
    """A window on its way through the engine.

    language: given or, after the first pass, detected. previous: tokens put before it, None: the options'.
    device_s: its share of the device's time so far.
    retry_device_s: the part of it that went into decoding again.
    kept: the positions that the first pass kept (None: all).
    hidden: its dense encoder output [positions, dim], kept while it may be decoded once more.
    """

    samples: np.ndarray
    seed: int
    language: str | None
    previous: tuple[int, ...] | None = None
    language_probability: float | None = None
    device_s: float = 0.0
    retry_device_s: float = 0.0
    kept: tuple[int, ...] | None = None
    hidden: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass of a window: how sparse, how warm, and whether its encoder output stays for another use.

    level: None is dense.
    """

    level: Level | None = None
    temperature: float = 0.0
    keeps_hidden: bool = False
    max_new_tokens: int | None = None

    @property
    def is_dense(self) -> bool:
        return self.level is None or self.level.is_dense


@dataclass(eq=False, kw_only=True)
class Item:
    """One pass of one window in the queues of the scheduler.

    number: its place in the order of arrival. positions: those that go into the first layer, None for all.
    size: how many it keeps. slot_size: those of the slots that it needs, None where they take any.
    prepared: its features, if they were made ahead, until the encoder takes them.
    kept: the positions it keeps, None for all. hidden: its encoder output, where the pass keeps that,
    [size, dim].
    """

    number: int
    call: Call
    work: Work
    settings: Pass
    positions: Tensor | None
    size: int
    slot_size: int | None
    prepared: Prepared | None = None
    kept: Tensor | None = None
    hidden: Tensor | None = None
    outcome: Decoding | None = None

    @property
    def needs_features(self) -> bool:
        """Whether the encoder has yet to see the window."""
        return not self.settings.is_dense or self.work.hidden is None


@dataclass(eq=False, kw_only=True)
class Call:
    """The passes that one thread waits for. error: what became of them, if that was no text.

    errand: something else that is to be done on the device, None once it is; `works` pay for its time.
    is_withdrawn: nobody waits for it any more.
    """

    items: list[Item] = field(default_factory=list)
    num_done: int = 0
    error: BaseException | None = None
    errand: Callable[[], None] | None = None
    works: Sequence[Work] = ()
    is_withdrawn: bool = False

    @property
    def is_over(self) -> bool:
        is_done = self.num_done == len(self.items) and self.errand is None
        return self.is_withdrawn or self.error is not None or is_done

    def finish(self, item: Item, outcome: Decoding) -> None:
        outcome.kept, outcome.hidden = item.kept, item.hidden
        item.outcome = outcome
        self.num_done += 1

    def outcomes(self) -> list[Decoding]:
        """One decoding per item. Raises the call's error."""
        if self.error is not None:
            raise self.error
        return [item.outcome for item in self.items if item.outcome is not None]


def charge(works: Sequence[Work], seconds: float) -> None:
    """Shares a block's device time out equally among its windows, whatever their sizes."""
    for work in works:
        work.device_s += seconds / len(works)
