"""One device for many calls: passes of windows wait in queues, and one thread at a time works through them.

Every thread that waits for a call may drive the device; one does, until its own call is over, and serves the
windows of all. So there is no thread of the engine's own that could die or outlive it, and a call that fails
takes nobody with it: windows that were together when something broke are run again, each alone.

Windows of one size decode together, the size of the oldest window first, in one set of slots that is
refilled as windows finish.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.engine.decoding.beam_slots import BeamSlots
from pipeline.engine.decoding.slots import Slots
from pipeline.engine.decoding.tasks import Decoding
from pipeline.engine.scheduling.encoding import WindowEncoder
from pipeline.engine.scheduling.queues import Queues
from pipeline.engine.scheduling.work import Call, Item, Pass, Work, charge

# Slots are refilled when one in four is free: a pass over few new windows costs nearly as much as over many.
REFILL_SHARE = 4
# A size is not refilled with windows that arrived this many batches after the oldest of another size.
PATIENCE = 16

NewSlots = Callable[[int, int], Slots | BeamSlots]  # number of slots, positions
Start = Callable[[Slots | BeamSlots, list[Item]], list[Decoding]]


class Scheduler:
    """The device's queue. busy_s: seconds that the device has worked; every one is charged to a window."""

    def __init__(
        self, encoding: WindowEncoder, new_slots: NewSlots, start: Start, *, batch_size: int
    ) -> None:
        self._encoding, self._new_slots, self._start = encoding, new_slots, start
        self._batch_size = batch_size
        self.busy_s = 0.0
        # Shared by all threads, under `_changed`.
        self._changed = threading.Condition()
        self._is_driven = False
        self._queues = Queues()
        # The driving thread's own.
        self._slots: Slots | BeamSlots | None = None
        self._running: dict[int, Item] = {}

    def run(self, works: Sequence[Work], settings: Sequence[Pass]) -> list[Decoding]:
        """Takes every work through its pass; results in the same order. Any number of threads may call.

        Raises what went wrong with one of these works when it was run alone.
        """
        positions = [
            self._encoding.positions_of(work, asked) for work, asked in zip(works, settings, strict=True)
        ]
        with self._changed:
            call = self._queues.admit(works, settings, positions)
        self._wait_for(call)
        return call.outcomes()

    def run_errand(self, works: Sequence[Work], errand: Callable[[], None]) -> None:
        """Runs something else on the device, between two blocks of its work; `works` pay for its time.

        Any number of threads may call. Raises what the errand raises.
        """
        call = Call(errand=errand, works=works)
        with self._changed:
            self._queues.errands.append(call)
        self._wait_for(call)
        call.outcomes()

    def _wait_for(self, call: Call) -> None:
        try:
            while self._wait_for_turn(call):
                try:
                    self._drive(call)
                finally:
                    self._pass_on()
        finally:
            with self._changed:
                self._queues.withdraw(call)

    def _wait_for_turn(self, call: Call) -> bool:
        """Whether it is this thread's turn to drive; False once its call is over."""
        with self._changed:
            self._changed.wait_for(lambda: call.is_over or not self._is_driven)
            if call.is_over:
                return False
            self._is_driven = True
            return True

    def _pass_on(self) -> None:
        with self._changed:
            self._is_driven = False
            self._changed.notify_all()

    # --- the driver ---------------------------------------------------------------------------------------

    def _drive(self, call: Call) -> None:
        try:
            while not call.is_over:
                self._advance()
        except BaseException:
            self._break_up([])
            raise

    def _advance(self) -> None:
        """One block of work on the device."""
        if errand := self._take_errand():
            self._run_errand(errand)
        elif broken := self._take_broken():
            self._guarded([broken], lambda: self._run_alone(broken))
        elif batch := self._take_batch():
            self._guarded(batch, lambda: self._fill(batch))
        else:
            assert self._running, "a call waits for windows that are in no queue"
            self._guarded([], self._step)

    def _take_errand(self) -> Call | None:
        with self._changed:
            return self._queues.errands.popleft() if self._queues.errands else None

    def _run_errand(self, call: Call) -> None:
        assert call.errand is not None
        try:
            with self._busy(call.works):
                call.errand()
        except Exception as error:
            self._fail(call, error)
        except BaseException:  # the thread is stopped, which is no fault of the errand
            with self._changed:
                self._queues.errands.appendleft(call)
            raise
        else:
            call.errand = None
            self._announce()

    def _take_broken(self) -> Item | None:
        with self._changed:
            return self._queues.broken.popleft() if self._queues.broken and not self._running else None

    def _take_batch(self) -> list[Item]:
        """Items of one size for the slots."""
        with self._changed:
            oldest = self._queues.oldest()
            if not oldest:
                return []
            if not self._running:
                return self._queues.take_ready(min(oldest, key=oldest.__getitem__), self._batch_size)
            if oldest.get(self._size, math.inf) > min(oldest.values()) + PATIENCE * self._batch_size:
                return []
            number = self._num_wanted(self._queues.num_ready(self._size))
            return self._queues.take_ready(self._size, number)

    def _num_wanted(self, num_waiting: int) -> int:
        """How many of the windows that wait for the running slots may join them now.

        Slots that were made for few windows are worth a copy when as many again have come, or a full batch.
        """
        assert self._slots is not None
        size = min(self._batch_size, len(self._running) + num_waiting)
        if size > self._slots.size and size >= min(2 * self._slots.size, self._batch_size):
            return size - len(self._running)
        return self._slots.num_free if self._has_room else 0

    @property
    def _size(self) -> int:
        return 0 if self._slots is None else self._slots.num_positions

    @property
    def _has_room(self) -> bool:
        slots = self._slots
        return slots is not None and slots.num_free >= max(1, slots.size // REFILL_SHARE)

    def _make_room(self, number: int, size: int) -> Slots | BeamSlots:
        """Slots of a size with `number` free ones."""
        if not self._running and (self._slots is None or (self._slots.size, self._size) != (number, size)):
            self._slots = None  # the old caches go before the new ones come
            self._slots = self._new_slots(number, size)
        assert self._slots is not None
        if self._slots.num_free < number:
            self._slots.resize(len(self._running) + number)
        return self._slots

    def _fill(self, items: list[Item]) -> None:
        with self._busy([item.work for item in items]):
            slots = self._make_room(len(items), items[0].size)
            self._running |= {item.number: item for item in items}
            finished = self._start(slots, items)
        self._finish(finished)

    def _step(self) -> None:
        assert self._slots is not None
        with self._busy([item.work for item in self._running.values()]):
            if not self._queues.num_ready(self._size) and 2 * len(self._running) <= self._slots.size:
                self._slots.resize(len(self._running))
            self._encoding.prepare(self._upcoming())
            finished = self._slots.step()
        self._finish(finished)

    def _upcoming(self) -> list[Item]:
        """The items whose features will be asked for next."""
        with self._changed:
            return self._queues.first(self._size, self._batch_size)

    def _finish(self, finished: Sequence[Decoding]) -> None:
        for decoding in finished:
            item = self._running.pop(decoding.task.index)
            item.call.finish(item, decoding)
            if item.call.is_over:
                self._announce()

    def _announce(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def _busy(self, works: Sequence[Work]) -> Iterator[None]:
        """A block of the device's time, shared out equally: its windows have equally many positions."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self.busy_s += seconds
            charge(works, seconds)

    # --- when something breaks ----------------------------------------------------------------------------

    def _guarded(self, items: list[Item], block: Callable[[], None]) -> None:
        """Runs a block; if it fails, all that was on the device is broken up."""
        try:
            block()
        except Exception as error:
            self._break_up(items, error)
        except BaseException:  # a thread that is stopped leaves its neighbours' windows to the next driver
            self._break_up(items)
            raise

    def _break_up(self, items: Sequence[Item], error: Exception | None = None) -> None:
        """Clears the slots; what ran in them waits to run alone, or fails if it was alone."""
        touched = list({item.number: item for item in (*items, *self._running.values())}.values())
        self._slots = None
        self._running.clear()
        if len(touched) == 1 and error is not None:
            self._fail(touched[0].call, error)
            return
        with self._changed:
            for item in touched:
                if item.call.is_over:
                    continue
                item.kept = None
                self._queues.broken.append(item)

    def _run_alone(self, item: Item) -> None:
        self._fill([item])
        while self._running:
            self._step()

    def _fail(self, call: Call, error: Exception) -> None:
        call.error = error
        with self._changed:
            self._queues.withdraw(call)
        self._announce()
