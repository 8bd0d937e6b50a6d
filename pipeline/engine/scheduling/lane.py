"""One lane of the device: a set of slots, refilled as windows finish, driven by one thread at a time.

On a CPU windows of all sizes decode together; on a GPU those of one size, that of the oldest window first.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.engine.decoding.beam_slots import BeamSlots
from pipeline.engine.decoding.slots import Slots
from pipeline.engine.decoding.tasks import Decoding
from pipeline.engine.scheduling.encoding import WindowEncoder
from pipeline.engine.scheduling.queues import Queues
from pipeline.engine.scheduling.work import Call, Item, Work, charge

# Slots are refilled when one in four is free: a pass over few new windows costs nearly as much as over many.
REFILL_SHARE = 4
# A size is not refilled with windows that arrived this many batches after the oldest of another size.
PATIENCE = 16

NewSlots = Callable[[int, int | None], Slots | BeamSlots]  # number of slots, positions
Start = Callable[[Slots | BeamSlots, list[Item]], list[Decoding]]


@dataclass(eq=False, kw_only=True)
class Device:
    """What the lanes of a device share. batch_size: the most windows of one lane.

    changed: guards the queues and the calls; whoever waits for one of these is told by it.
    """

    encoding: WindowEncoder
    new_slots: NewSlots
    start: Start
    batch_size: int
    num_lanes: int
    queues: Queues
    changed: threading.Condition = field(default_factory=threading.Condition)

    def announce(self) -> None:
        """Tells all that wait to look again."""
        with self.changed:
            self.changed.notify_all()


class Lane:
    """A lane's slots and what runs in them; not for two threads at once.

    busy_s: seconds that it kept the device busy, of which it is one part in `num_lanes`; every one is charged
    to a window.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._slots: Slots | BeamSlots | None = None
        self._running: dict[int, Item] = {}
        self.busy_s = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether no window is in its slots."""
        return not self._running

    def advance(self) -> bool:
        """One block of work on the device; False where there was nothing to do."""
        if errand := self._take_errand():
            self._run_errand(errand)
        elif broken := self._take_broken():
            self._guarded([broken], lambda: self._run_alone(broken))
        elif batch := self._take_batch():
            self._guarded(batch, lambda: self._fill(batch))
        elif self._running:
            self._guarded([], self._step)
        else:
            return False
        return True

    def _take_errand(self) -> Call | None:
        with self._device.changed:
            errands = self._device.queues.errands
            return errands.popleft() if errands else None

    def _run_errand(self, call: Call) -> None:
        assert call.errand is not None
        try:
            with self._busy(call.works):
                call.errand()
        except Exception as error:
            self._fail(call, error)
        except BaseException:  # the thread is stopped, which is no fault of the errand
            with self._device.changed:
                self._device.queues.errands.appendleft(call)
            raise
        else:
            call.errand = None
            self._device.announce()

    def _take_broken(self) -> Item | None:
        with self._device.changed:
            broken = self._device.queues.broken
            return broken.popleft() if broken and not self._running else None

    def _take_batch(self) -> list[Item]:
        """Items of one size for the slots; of an empty lane no more than its share of all that wait."""
        device, queues = self._device, self._device.queues
        with device.changed:
            oldest = queues.oldest()
            if not oldest:
                return []
            if not self._running:
                share = -(-queues.num_waiting // device.num_lanes)
                return queues.take_ready(min(oldest, key=oldest.__getitem__), min(device.batch_size, share))
            if oldest.get(self._size, math.inf) > min(oldest.values()) + PATIENCE * device.batch_size:
                return []
            number = self._num_wanted(queues.num_ready(self._size))
            return queues.take_ready(self._size, number)

    def _num_wanted(self, num_waiting: int) -> int:
        """How many of the windows that wait for the running slots may join them now.

        Slots that were made for few windows are worth a copy when as many again have come, or a full batch.
        """
        assert self._slots is not None
        batch_size = self._device.batch_size
        size = min(batch_size, len(self._running) + num_waiting)
        if size > self._slots.size and size >= min(2 * self._slots.size, batch_size):
            return size - len(self._running)
        return self._slots.num_free if self._has_room else 0

    @property
    def _size(self) -> int | None:
        return None if self._slots is None else self._slots.num_positions

    @property
    def _has_room(self) -> bool:
        slots = self._slots
        return slots is not None and slots.num_free >= max(1, slots.size // REFILL_SHARE)

    def _make_room(self, number: int, size: int | None) -> Slots | BeamSlots:
        """Slots of a size with `number` free ones."""
        if not self._running and (self._slots is None or (self._slots.size, self._size) != (number, size)):
            self._slots = None  # the old caches go before the new ones come
            self._slots = self._device.new_slots(number, size)
        assert self._slots is not None
        if self._slots.num_free < number:
            self._slots.resize(len(self._running) + number)
        return self._slots

    def _fill(self, items: list[Item]) -> None:
        with self._busy([item.work for item in items]):
            slots = self._make_room(len(items), items[0].slot_size)
            self._running |= {item.number: item for item in items}
            finished = self._device.start(slots, items)
        self._finish(finished)

    def _step(self) -> None:
        assert self._slots is not None
        with self._busy([item.work for item in self._running.values()]):
            is_last = not self._device.queues.num_ready(self._size)
            if is_last and 2 * len(self._running) <= self._slots.size:
                self._slots.resize(len(self._running))
            self._device.encoding.prepare(self._upcoming())
            finished = self._slots.step()
        self._finish(finished)

    def _upcoming(self) -> list[Item]:
        """The items whose features will be asked for next."""
        with self._device.changed:
            return self._device.queues.first(self._size, self._device.batch_size)

    def _finish(self, finished: Sequence[Decoding]) -> None:
        for decoding in finished:
            item = self._running.pop(decoding.task.index)
            with self._device.changed:
                item.call.finish(item, decoding)
                if item.call.is_over:
                    self._device.changed.notify_all()

    @contextmanager
    def _busy(self, works: Sequence[Work]) -> Iterator[None]:
        """A block of the lane's time, for which its windows pay."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = (time.perf_counter() - started) / self._device.num_lanes
            self.busy_s += seconds
            charge(works, seconds)

    # --- when something breaks ----------------------------------------------------------------------------

    def _guarded(self, items: list[Item], block: Callable[[], None]) -> None:
        """Runs a block; if it fails, all that was in the lane is broken up."""
        try:
            block()
        except Exception as error:
            self.break_up(items, error)
        except BaseException:  # a thread that is stopped leaves its neighbours' windows to the next driver
            self.break_up(items)
            raise

    def break_up(self, items: Sequence[Item] = (), error: Exception | None = None) -> None:
        """Clears the slots; what ran in them waits to run alone, or fails if it was alone."""
        touched = list({item.number: item for item in (*items, *self._running.values())}.values())
        self._slots = None
        self._running.clear()
        if len(touched) == 1 and error is not None:
            self._fail(touched[0].call, error)
            return
        with self._device.changed:
            for item in touched:
                if item.call.is_over:
                    continue
                item.kept = None
                self._device.queues.broken.append(item)

    def _run_alone(self, item: Item) -> None:
        self._fill([item])
        while self._running:
            self._step()

    def _fail(self, call: Call, error: Exception) -> None:
        with self._device.changed:
            call.error = error
            self._device.queues.withdraw(call)
            self._device.changed.notify_all()
