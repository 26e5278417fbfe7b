"""The order in which records of several inputs of one partition are handled.

Pure. By timestamp, a topic's own order always kept (a record that is older than its predecessor
counts as old as that one), ties to the input declared first. While an input has more to come than
is at hand, nothing newer than what is at hand of it is handed out: so a backlog is worked off in
the order it arose, whichever topic it is in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """Anything with a timestamp."""

    @property
    def timestamp(self) -> int: ...


R = TypeVar("R", bound=Timed)


class Merge(Generic[R]):
    """Buffers records per input and hands them out in one order."""

    def __init__(self, topics: Sequence[str]) -> None:
        self._queues: dict[str, deque[R]] = {topic: deque() for topic in topics}
        self.size = 0

    def push(self, topic: str, records: Sequence[R]) -> None:
        """Add what arrived of one topic."""
        self._queues[topic].extend(records)
        self.size += len(records)

    def buffered(self, topic: str) -> int:
        """How many records of a topic wait."""
        return len(self._queues[topic])

    def oldest(self) -> int | None:
        """The timestamp of the oldest record that waits."""
        return min((queue[0].timestamp for queue in self._queues.values() if queue), default=None)

    def clear(self) -> None:
        """Forget all of it."""
        for queue in self._queues.values():
            queue.clear()
        self.size = 0

    def take(self, limit: int, behind: Collection[str] = ()) -> list[R]:
        """Hand out up to `limit` records; `behind` names inputs of which more exists than is at
        hand.
        """
        filled = [topic for topic, queue in self._queues.items() if queue]
        waited_for = [topic for topic in behind if topic in self._queues]
        if any(topic not in filled for topic in waited_for):
            return []
        if len(filled) < 2:
            return self._from(filled[0], limit) if filled else []
        horizon = self._horizon(waited_for)
        tagged: list[tuple[int, int, R]] = []
        for rank, topic in enumerate(filled):
            newest = 0
            for record in islice(self._queues[topic], limit):
                newest = max(newest, record.timestamp)
                if horizon is not None and newest > horizon:
                    break
                tagged.append((newest, rank, record))
        tagged.sort(key=_time)
        del tagged[limit:]
        for _, rank, _ in tagged:
            self._queues[filled[rank]].popleft()
        self.size -= len(tagged)
        return [record for _, _, record in tagged]

    def _horizon(self, waited_for: Sequence[str]) -> int | None:
        newest = [max(each.timestamp for each in self._queues[topic]) for topic in waited_for]
        return min(newest, default=None)

    def _from(self, topic: str, limit: int) -> list[R]:
        queue = self._queues[topic]
        if len(queue) <= limit:
            taken = list(queue)
            queue.clear()
        else:
            taken = [queue.popleft() for _ in range(limit)]
        self.size -= len(taken)
        return taken


def _time(tagged: tuple[int, int, object]) -> int:
    return tagged[0]
