"""What waits for the device, in the order of arrival; not safe by itself, its owner holds a lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from pipeline.engine.scheduling.work import Call, Item, Pass, Work


class Queues:
    """Items that wait for phase A (unread) or for slots (ready, by size), and what goes before them.

    broken: items that were together when something broke; each runs alone. errands: see `Call`.
    """

    def __init__(self) -> None:
        self.broken: deque[Item] = deque()
        self.errands: deque[Call] = deque()
        self._unread: deque[Item] = deque()
        self._ready: dict[int, deque[Item]] = {}
        self._num_items = 0

    def admit(self, works: Sequence[Work], settings: Sequence[Pass], sizes: Sequence[int | None]) -> Call:
        """Puts works into the queues, those whose size is None before phase A."""
        call = Call()
        for work, asked, size in zip(works, settings, sizes, strict=True):
            item = Item(number=self._num_items, call=call, work=work, settings=asked, size=size)
            self._num_items += 1
            call.items.append(item)
            if size is None:
                self._unread.append(item)
            else:
                self.make_ready(item)
        return call

    def withdraw(self, call: Call) -> None:
        """Forgets what is left of a call that is over; what is in the slots already runs out there."""
        if call.num_done == len(call.items) and call.errand is None:
            return
        if call in self.errands:
            self.errands.remove(call)
        for queue in (self._unread, self.broken, *self._ready.values()):
            left = [item for item in queue if item.call is not call]
            queue.clear()
            queue.extend(left)

    def make_ready(self, item: Item) -> None:
        """Puts an item of known size behind the others of that size."""
        assert item.size is not None
        self._ready.setdefault(item.size, deque()).append(item)

    def take_unread(self, number: int) -> list[Item]:
        """Takes at most `number` of the items that wait for phase A."""
        return [self._unread.popleft() for _ in range(min(number, len(self._unread)))]

    def take_ready(self, size: int, number: int) -> list[Item]:
        """Takes at most `number` of the items of one size."""
        return [self._ready[size].popleft() for _ in range(min(number, self.num_ready(size)))]

    def first(self, size: int, number: int) -> list[Item]:
        """The first items that wait for slots of one size and for phase A, at most `number` of each."""
        ready = self._ready.get(size, ())
        return [*islice(ready, number), *islice(self._unread, number)]

    def num_ready(self, size: int) -> int:
        """How many items of one size wait for slots."""
        return len(self._ready.get(size, ()))

    def num_read(self) -> int:
        """How many items wait between the phases, with what phase A left of them."""
        return sum(item.early is not None for queue in self._ready.values() for item in queue)

    def oldest(self) -> dict[int, int]:
        """For each size that has items, the number of the oldest."""
        return {size: queue[0].number for size, queue in self._ready.items() if queue}
