"""A log in memory, for tests and simulation; same contract as the real one.

What was sent stays on the broker whatever becomes of the caller; a cut may lose the answer, or part
of what was being sent. Never used by a running service.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ledger_writer.event import EVENTS
from ledger_writer.memory import Weather
from ledger_writer.port import Event, Record
from schemas.errors import Poisoned
from schemas.wire import decode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class MemoryTopics:
    """The broker: what all logs on it share, by partition."""

    def __init__(self) -> None:
        self.commands: defaultdict[int, list[Record]] = defaultdict(list)
        self.events: defaultdict[int, list[Event]] = defaultdict(list)
        self.buried: defaultdict[int, list[tuple[Record, str]]] = defaultdict(list)
        self.ends: defaultdict[int, int] = defaultdict(int)
        """Where the log ends if transaction markers follow its last record."""


class MemoryLog:
    """One partition's log; see `port.Log`."""

    def __init__(self, topics: MemoryTopics, partition: int, at: int, weather: Weather) -> None:
        self._topics = topics
        self._partition = partition
        self.position = at
        self._weather = weather

    @property
    def lag(self) -> int:
        """How far the log is ahead of what was taken."""
        records = self._topics.commands[self._partition]
        return records[-1].offset + 1 - self.position if records else 0

    async def take(self, records_max: int) -> list[Record]:
        """Return the next records; none after a while."""
        await self._weather.sending("take")
        records = self._topics.commands[self._partition]
        found = [record for record in records if record.offset >= self.position][:records_max]
        if found:
            self.position = found[-1].offset + 1
        else:
            self.position = max(self.position, self._topics.ends[self._partition])
            await asyncio.sleep(0.05)
        return found

    async def bury(self, dead: Sequence[tuple[Record, str]]) -> None:
        """Dead-letter records."""
        await self._weather.sending("bury")
        self._topics.buried[self._partition].extend(dead)

    async def publish(self, events: Sequence[Event]) -> None:
        """Append events, one by one: a cut leaves the first of them."""
        for event in events:
            await self._weather.sending("publish")
            self._topics.events[self._partition].append(event)
        await self._weather.answering("publish")

    async def published_position(self) -> int:
        """Return the highest position that `ledger.events` shows."""
        await self._weather.sending("published_position")
        return max((_position(event) for event in self._topics.events[self._partition]), default=0)


class MemoryLogs:
    """Opens logs on one broker."""

    def __init__(self, topics: MemoryTopics, weather: Weather | None = None) -> None:
        self._topics = topics
        self._weather = weather or Weather()

    @asynccontextmanager
    async def open(self, partition: int, next_offset: int) -> AsyncIterator[MemoryLog]:
        """Connect."""
        await self._weather.sending("connect")
        yield MemoryLog(self._topics, partition, next_offset, self._weather)


def _position(event: Event) -> int:
    try:
        position = decode(EVENTS, event.value)["position"]
    except Poisoned:
        return 0
    assert isinstance(position, int)
    return position
