"""One device for many calls: passes of windows wait in queues, and its lanes work through them side by side.

A GPU has one lane. On a CPU several lanes with a few threads each get more done than one with all of them:
most of a decoder's step is too small to be shared out among threads.

Every thread that waits for a call may drive a lane; it does, until its own call is over, and serves the
windows of all. A call of several windows brings threads for the other lanes, which end with it. So no thread
of the engine's own could die or outlive it, and a call that fails takes nobody with it: windows that were
together when something broke are run again, each alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from pipeline.engine.decoding.tasks import Decoding
from pipeline.engine.scheduling.encoding import WindowEncoder
from pipeline.engine.scheduling.lane import Device, Lane, NewSlots, Start
from pipeline.engine.scheduling.queues import Queues
from pipeline.engine.scheduling.work import Call, Pass, Work


class GivenUp(RuntimeError):
    """The engine was told to give up."""


class Scheduler:
    """The device's queue.

    threads: of each lane; None leaves them as they are. are_mixed: slots take windows of any size.
    """

    def __init__(
        self,
        encoding: WindowEncoder,
        new_slots: NewSlots,
        start: Start,
        *,
        batch_size: int,
        num_lanes: int = 1,
        threads: int | None = None,
        are_mixed: bool = False,
    ) -> None:
        self._encoding, self._threads = encoding, threads
        self._device = Device(
            encoding=encoding,
            new_slots=new_slots,
            start=start,
            batch_size=batch_size,
            num_lanes=num_lanes,
            queues=Queues(are_mixed=are_mixed),
        )
        self._lanes = [Lane(self._device) for _ in range(num_lanes)]
        self._free = list(self._lanes)  # those that no thread drives, under `changed`
        self._calls: list[Call] = []  # that somebody waits for, likewise
        self._is_given_up = False

    @property
    def busy_s(self) -> float:
        """Seconds that the device has worked; every one is charged to a window."""
        return sum(lane.busy_s for lane in self._lanes)

    def run(self, works: Sequence[Work], settings: Sequence[Pass]) -> list[Decoding]:
        """Takes every work through its pass; results in the same order. Any number of threads may call.

        Raises what went wrong with one of these works when it was run alone.
        """
        positions = [
            self._encoding.positions_of(work, asked) for work, asked in zip(works, settings, strict=True)
        ]
        with self._device.changed:
            call = self._device.queues.admit(works, settings, positions)
            self._begin([call])
        self._wait_for([call], num_parts=len(works))
        return call.outcomes()

    def run_errands(self, errands: Sequence[tuple[Sequence[Work], Callable[[], None]]]) -> None:
        """Runs other things on the device, between blocks of its work; the works of each pay for its time.

        Any number of threads may call. Raises what an errand raises.
        """
        calls = [Call(errand=errand, works=works) for works, errand in errands]
        with self._device.changed:
            self._device.queues.errands.extend(calls)
            self._begin(calls)
        self._wait_for(calls, num_parts=len(calls))
        for call in calls:
            call.outcomes()

    def give_up(self) -> None:
        """Ends the calls of all threads with `GivenUp`, and every later one."""
        with self._device.changed:
            self._is_given_up = True
            self._begin([])

    def _begin(self, calls: Sequence[Call]) -> None:
        """Calls wait from now on, under `changed`."""
        self._calls += calls
        if self._is_given_up:
            for call in self._calls:
                call.error = GivenUp("the engine was told to give up")
        self._device.changed.notify_all()

    def _wait_for(self, calls: Sequence[Call], *, num_parts: int) -> None:
        """Drives lanes, alone or with help, until calls are over. num_parts: what lanes can do at once."""
        helpers = [
            threading.Thread(target=self._help, args=(calls,), name="engine-lane")
            for _ in range(min(len(self._lanes), num_parts) - 1)
        ]
        with _threads(self._threads):
            try:
                for helper in helpers:
                    helper.start()
                self._drive_for(calls)
            finally:
                with self._device.changed:
                    for call in calls:
                        self._calls.remove(call)
                        self._device.queues.withdraw(call)
                    self._device.changed.notify_all()
                for helper in helpers:
                    if helper.ident is not None:
                        helper.join()

    @torch.inference_mode()
    def _help(self, calls: Sequence[Call]) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        self._drive_for(calls)

    def _drive_for(self, calls: Sequence[Call]) -> None:
        for call in calls:
            while lane := self._next_lane(call):
                self._drive(lane, call)

    def _drive(self, lane: Lane, call: Call) -> None:
        try:
            while not call.is_over and lane.advance():
                pass
        except BaseException:
            lane.break_up()
            raise
        finally:
            with self._device.changed:
                self._free.append(lane)
                self._device.changed.notify_all()

    def _next_lane(self, call: Call) -> Lane | None:
        """Waits for a lane that nobody drives and that has something to do; None once a call is over."""
        with self._device.changed:
            self._device.changed.wait_for(lambda: call.is_over or self._idle_lane() is not None)
            lane = None if call.is_over else self._idle_lane()
            if lane is not None:
                self._free.remove(lane)
            return lane

    def _idle_lane(self) -> Lane | None:
        """A free lane whose driver left windows in it, or any where more work waits."""
        left = [lane for lane in self._free if not lane.is_empty]
        return next(iter(left or (self._free if self._device.queues.has_work else ())), None)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """torch with some threads in this thread, and as before after it."""
    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
