"""What waits for the device, in the order of arrival; not safe by itself, its owner holds a lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from torch import Tensor

from pipeline.engine.scheduling.work import Call, Item, Pass, Work


class Queues:
    """Items that wait for slots, by the size of these, and what goes before them.

    are_mixed: slots take items of any size, so that they wait in one queue.
    broken: items that were together when something broke; each runs alone. errands: see `Call`.
    """

    def __init__(self, *, are_mixed: bool) -> None:
        self._are_mixed = are_mixed
        self.broken: deque[Item] = deque()
        self.errands: deque[Call] = deque()
        self._ready: dict[int | None, deque[Item]] = {}
        self._num_items = 0

    def admit(
        self, works: Sequence[Work], settings: Sequence[Pass], positions: Sequence[tuple[Tensor | None, int]]
    ) -> Call:
        """Puts works into the queues. positions: what each keeps, as `WindowEncoder.positions_of` says."""
        call = Call()
        for work, asked, (left, size) in zip(works, settings, positions, strict=True):
            item = Item(
                number=self._num_items,
                call=call,
                work=work,
                settings=asked,
                positions=left,
                size=size,
                slot_size=None if self._are_mixed else size,
            )
            self._num_items += 1
            call.items.append(item)
            self._ready.setdefault(item.slot_size, deque()).append(item)
        return call

    def withdraw(self, call: Call) -> None:
        """Forgets what is left of a call that is over; what is in the slots already runs out there."""
        call.is_withdrawn = True
        if call.num_done == len(call.items) and call.errand is None:
            return
        if call in self.errands:
            self.errands.remove(call)
        for queue in (self.broken, *self._ready.values()):
            left = [item for item in queue if item.call is not call]
            queue.clear()
            queue.extend(left)

    @property
    def num_waiting(self) -> int:
        """How many items wait for slots, of whatever size."""
        return sum(map(len, self._ready.values()))

    @property
    def has_work(self) -> bool:
        """Whether anything waits."""
        return bool(self.errands or self.broken or self.num_waiting)

    def take_ready(self, size: int | None, number: int) -> list[Item]:
        """Takes at most `number` of the items for slots of one size."""
        return [self._ready[size].popleft() for _ in range(min(number, self.num_ready(size)))]

    def first(self, size: int | None, number: int) -> list[Item]:
        """The first items that wait for slots of one size, at most `number`."""
        return list(islice(self._ready.get(size, ()), number))

    def num_ready(self, size: int | None) -> int:
        """How many items of one size wait for slots."""
        return len(self._ready.get(size, ()))

    def oldest(self) -> dict[int | None, int]:
        """For each size that has items, the number of the oldest."""
        return {size: queue[0].number for size, queue in self._ready.items() if queue}
