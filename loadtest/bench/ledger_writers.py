"""Writers in this process on a real ledger database: fed from memory, or by the real log on Kafka.

It is the writer's own `Partition` in either case, decode to events; only where records come from
and events go differs. A batch's time runs from its records being taken to the next ones being
asked for: decode, look, decide, commit. Four partitions share the process, so a batch may wait for
another partition's turn, as it does in service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from ledger_writer.kafka import KafkaLogs
from ledger_writer.partition import Partition
from ledger_writer.port import Event, Log, Logs, Record
from ledger_writer.postgres import PostgresJournals
from loadtest.bench.ledger_load import PARTITIONS, Keyed
from loadtest.bench.streams_meter import BenchError
from loadtest.generator.histogram import exact_quantile

QUIET: Final = 1_000_000_000
"""One identity in so many is logged."""

IDLE_S: Final = 0.005
STALLED_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run came to; `seconds` of this process's CPU, all of it but the making of load."""

    commands: int
    seconds: float
    cpu_s: float
    batches_s: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Return a table's columns."""
        times = sorted(self.batches_s)
        return {
            "commands/s": self.commands / self.seconds,
            "p50 ms": exact_quantile(times, 0.50) * 1e3 if times else None,
            "p99 ms": exact_quantile(times, 0.99) * 1e3 if times else None,
            "writer us each": self.cpu_s / self.commands * 1e6,
        }


class Feeds:
    """Logs in memory: what is fed is taken in order, events are counted and dropped."""

    def __init__(self, shown: dict[int, int] | None = None) -> None:
        self.queues: list[list[Record]] = [[] for _ in range(PARTITIONS)]
        self.shown = shown or {}
        self._ends = [0] * PARTITIONS
        self.events = 0

    def feed(self, commands: Iterable[Keyed]) -> None:
        """Replace what was taken by these."""
        now_ms = time.time_ns() // 1_000_000
        self.queues = [[] for _ in range(PARTITIONS)]
        for partition, key, value in commands:
            offset = self._ends[partition]
            self._ends[partition] += 1
            self.queues[partition].append(Record(offset, now_ms, key, value, ()))

    @asynccontextmanager
    async def open(self, partition: int, next_offset: int) -> AsyncIterator[Log]:
        """Connect."""
        yield Feed(self, partition, next_offset)


class Feed:
    """One partition's log; see `ledger_writer.port.Log`."""

    def __init__(self, feeds: Feeds, partition: int, position: int) -> None:
        self._feeds = feeds
        self._partition = partition
        self.position = position

    @property
    def lag(self) -> int:
        """How much is left of what was fed."""
        queue = self._feeds.queues[self._partition]
        return queue[-1].offset + 1 - self.position if queue else 0

    async def take(self, records_max: int) -> list[Record]:
        """Return the next records; none after a moment."""
        queue = self._feeds.queues[self._partition]
        begin = self.position - queue[0].offset if queue else 0
        found = queue[begin : begin + records_max]
        if not found:
            await asyncio.sleep(IDLE_S)
        self.position += len(found)
        return found

    async def bury(self, dead: Sequence[tuple[Record, str]]) -> None:
        """Refuse: the load has no poison."""
        raise BenchError(f"the writer takes a command for poison: {dead[0][1]}")

    async def publish(self, events: Sequence[Event]) -> None:
        """Count events that are ready."""
        self._feeds.events += len(events)

    async def published_position(self) -> int:
        """Say that all was published that ever was."""
        return self._feeds.shown.get(self._partition, 0)


class Timed:
    """Logs that tell how long each full batch took, from take to take."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self.batches_s: list[float] = []

    @asynccontextmanager
    async def open(self, partition: int, next_offset: int) -> AsyncIterator[Any]:
        """Connect."""
        async with self._logs.open(partition, next_offset) as log:
            take = log.take
            taken_at = 0.0

            async def timed(records_max: int) -> list[Record]:
                nonlocal taken_at
                if taken_at:
                    self.batches_s.append(time.perf_counter() - taken_at)
                records = await take(records_max)
                taken_at = time.perf_counter() if len(records) == records_max else 0.0
                return records

            log.take = timed  # type: ignore[method-assign]
            yield log


class Writers:
    """All partitions' writers on one database."""

    def __init__(self, dsn: str, logs: Logs, batch_max: int) -> None:
        self._timed = Timed(logs)
        journals = PostgresJournals(dsn, "bench", PARTITIONS)
        self._partitions = [
            Partition(
                number, PARTITIONS, journals, self._timed, batch_max=batch_max, log_sample=QUIET
            )
            for number in range(PARTITIONS)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Writers]:
        """Run them for as long as the block lasts."""
        self._tasks = [asyncio.create_task(each.run()) for each in self._partitions]
        try:
            yield self
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    async def reach(self, total: int) -> Measured:
        """Return once `total` commands are committed; measured from when all partitions run."""
        await self._all_ready()
        begin, cpu_s, began = self._committed(), time.process_time(), time.perf_counter()
        self._timed.batches_s.clear()
        moved, moved_at = begin, began
        while (done := self._committed()) < total:
            if done > moved:
                moved, moved_at = done, time.perf_counter()
            self._check(moved_at)
            await asyncio.sleep(IDLE_S)
        seconds = time.perf_counter() - began
        cpu_s = time.process_time() - cpu_s
        return Measured(done - begin, seconds, cpu_s, self._timed.batches_s[:])

    async def _all_ready(self) -> None:
        began = time.perf_counter()
        while not all(each.ready for each in self._partitions):
            self._check(began)
            await asyncio.sleep(IDLE_S)

    def _check(self, moved_at: float) -> None:
        ended = [task for task in self._tasks if task.done()]
        if ended or time.perf_counter() - moved_at > STALLED_S:
            raise BenchError(f"the writers stand still at {self._committed()} commands: {ended}")

    def _committed(self) -> int:
        return sum(each.next_offset for each in self._partitions)


def on_kafka(bootstrap: str) -> Logs:
    """Return the real logs."""
    return KafkaLogs(bootstrap, "bench")
