"""The order in which records of several inputs of one partition are handled.

Pure. By timestamp, a topic's own order always kept (a record that is older than its predecessor
counts as old as that one), ties to the input declared first. While an input has more to come than
is at hand, nothing newer than what is at hand of it is handed out: so a backlog is worked off in
the order it arose, whichever topic it is in.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Sequence
from itertools import accumulate, islice, repeat
from operator import attrgetter, itemgetter
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """Anything with a timestamp."""

    @property
    def timestamp(self) -> int: ...


R = TypeVar("R", bound=Timed)

_timestamp = attrgetter("timestamp")
_time = itemgetter(0)
_rank = itemgetter(1)
_record = itemgetter(2)


class Merge(Generic[R]):
    """Buffers records per input and hands them out in one order.

    What waits is (time, rank of its input, record), where time never falls within an input.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self._ranks = {topic: rank for rank, topic in enumerate(topics)}
        self._queues: list[deque[tuple[int, int, R]]] = [deque() for _ in topics]
        self._newest = [0] * len(topics)
        self.size = 0

    def push(self, topic: str, records: Sequence[R]) -> None:
        """Add what arrived of one topic."""
        if not records:
            return
        rank = self._ranks[topic]
        first = max(self._newest[rank], records[0].timestamp)
        times = list(accumulate(map(_timestamp, records), max, initial=first))
        self._newest[rank] = times[-1]
        self._queues[rank].extend(zip(islice(times, 1, None), repeat(rank), records))
        self.size += len(records)

    def buffered(self, topic: str) -> int:
        """How many records of a topic wait."""
        return len(self._queues[self._ranks[topic]])

    def oldest(self) -> int | None:
        """The timestamp of the oldest record that waits."""
        return min((queue[0][2].timestamp for queue in self._queues if queue), default=None)

    def clear(self) -> None:
        """Forget all of it."""
        for queue in self._queues:
            queue.clear()
        self._newest = [0] * len(self._newest)
        self.size = 0

    def take(self, limit: int, behind: Collection[str] = ()) -> list[R]:
        """Hand out up to `limit` records; `behind` names inputs of which more exists than is at
        hand.
        """
        waited_for = [self._ranks[topic] for topic in behind if topic in self._ranks]
        if not all(self._queues[rank] for rank in waited_for):
            return []
        filled = [queue for queue in self._queues if queue]
        if len(filled) < 2:
            return self._from(filled[0], limit) if filled else []
        horizon = min((self._newest[rank] for rank in waited_for), default=None)
        chosen: list[tuple[int, int, R]] = []
        for queue in filled:
            first = list(islice(queue, limit))
            if horizon is not None:
                del first[bisect_right(first, horizon, key=_time) :]
            chosen += first
        chosen.sort(key=_time)
        del chosen[limit:]
        for rank in map(_rank, chosen):
            self._queues[rank].popleft()
        self.size -= len(chosen)
        return list(map(_record, chosen))

    def _from(self, queue: deque[tuple[int, int, R]], limit: int) -> list[R]:
        taken = list(map(_record, islice(queue, limit)))
        if len(taken) == len(queue):
            queue.clear()
        else:
            for _ in taken:
                queue.popleft()
        self.size -= len(taken)
        return taken
