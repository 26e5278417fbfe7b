"""What has arrived for one partition and was not handled yet; bounded by pausing the topics that
run ahead.

Between `close` and `open` whatever arrives is dropped: `open` seeks, so it comes again.
Invariant: records of a topic are taken in offset order, each once per opening.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import TopicPartition

from streams.engine.merge import Merge

HELD_BACK_S: Final = 0.2
"""How long a batch waits for an input of which more is known to exist than is at hand."""

HELD_STEP_S: Final = 0.002


class Inlet:
    """The inputs of one partition, merged into one order."""

    def __init__(self, topics: Sequence[str], number: int, consumer: Any, batch_max: int) -> None:
        self._consumer = consumer
        self._tps = {topic: TopicPartition(topic, number) for topic in topics}
        self._merge: Merge[Any] = Merge(topics)
        self._batch_max = batch_max
        self._paused: set[str] = set()
        self._open = False
        self._awake = False
        self._wanted = 1
        self._arrived = asyncio.Event()

    def open(self, offsets: Mapping[str, int]) -> None:
        """Read on from these offsets."""
        self._merge.clear()
        self._paused.clear()
        for topic, tp in self._tps.items():
            self._consumer.seek(tp, offsets[topic])
            self._consumer.resume(tp)
        self._open = True

    def close(self) -> None:
        """Drop what waits, and whatever else arrives."""
        self._open = False
        self._merge.clear()
        assigned = self._consumer.assignment()
        for tp in self._tps.values():
            if tp in assigned:
                self._consumer.pause(tp)

    def push(self, topic: str, records: Sequence[Any]) -> None:
        """Take in what was fetched of a topic."""
        if not self._open:
            return
        self._merge.push(topic, records)
        if self._merge.buffered(topic) >= 2 * self._batch_max and topic not in self._paused:
            self._paused.add(topic)
            self._consumer.pause(self._tps[topic])
        if self._merge.size >= self._wanted:
            self._arrived.set()

    def wake(self) -> None:
        """End a wait, and every later one: a stop may come while nobody waits."""
        self._awake = True
        self._arrived.set()

    async def wait(self, within_s: float | None) -> None:
        """Wait until a record is there, the time is up, or `wake`."""
        if not self._merge.size:
            await self._wait_for(1, within_s)

    async def wait_full(self, records: int, within_s: float) -> None:
        """Wait until so many records are there, the time is up, or `wake`."""
        if self._merge.size < records:
            await self._wait_for(records, within_s)

    async def take(self, limit: int) -> list[Any]:
        """Return the next batch, in handling order."""
        taken = self._merge.take(limit, self._behind())
        waited = 0.0
        while not taken and self._merge.size and self._open:
            if waited >= HELD_BACK_S:
                taken = self._merge.take(limit)
                break
            await asyncio.sleep(HELD_STEP_S)
            waited += HELD_STEP_S
            taken = self._merge.take(limit, self._behind())
        for topic in tuple(self._paused):
            if self._merge.buffered(topic) < self._batch_max:
                self._paused.discard(topic)
                self._consumer.resume(self._tps[topic])
        return taken

    def lag(self) -> dict[str, int]:
        """How many offsets lie between what was handed out and what is committed at the broker."""
        lags = {}
        for topic, tp in self._tps.items():
            end, position = self._end_and_position(tp)
            ahead = max(0, end - position) if end is not None and position is not None else 0
            lags[topic] = ahead + self._merge.buffered(topic)
        return lags

    def age_s(self, now_s: float) -> float:
        """The age of the oldest record that waits here."""
        oldest = self._merge.oldest()
        return 0.0 if oldest is None else max(0.0, now_s - oldest / 1000)

    async def _wait_for(self, records: int, within_s: float | None) -> None:
        if self._awake:
            return
        self._wanted = records
        self._arrived.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), within_s)
        self._wanted = 1

    def _behind(self) -> list[str]:
        """Name the inputs of which the broker has more than has been fetched."""
        if len(self._tps) == 1:
            return []
        behind = []
        for topic, tp in self._tps.items():
            end, position = self._end_and_position(tp)
            if end is not None and position is not None and position < end:
                behind.append(topic)
        return behind

    def _end_and_position(self, tp: TopicPartition) -> tuple[int | None, int | None]:
        # The public calls wait for a position that is not known yet, or raise once tp is revoked.
        assignment = self._consumer._subscription.subscription.assignment  # noqa: SLF001
        if assignment is None or tp not in assignment.tps:
            return None, None
        state = assignment.state_value(tp)
        return state.lso, state.position if state.has_valid_position else None
