"""Read topics whole, `read_committed`, without joining any group: what was committed, in order.

Talks to Kafka, and only reads. `advance` reads up to the last stable offsets as they are at that
moment, so that what is read ends at a clean cut; every wait has a bound.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import Unavailable
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterable

READ_WITHIN_S: Final = 60.0
_FETCH_BYTES: Final = 4 * 1024 * 1024
_RECORDS_MAX: Final = 20_000

Headers = tuple[tuple[str, bytes], ...]
Offsets = dict[tuple[str, int], int]
"""(topic, partition) to an offset."""


@dataclass(slots=True, repr=False)
class Log:
    """The records of one topic in columns, partition by partition in offset order.

    `records` is filled by whoever decodes them, as far as they were decoded.
    """

    topic: str
    partitions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    records: list[dict[str, Any] | None] = field(default_factory=list)

    def __len__(self) -> int:
        """Return how many records it holds."""
        return len(self.offsets)

    def extend(self, records: Iterable[Any]) -> None:
        """Append records as the client hands them over."""
        for record in records:
            self.partitions.append(record.partition)
            self.offsets.append(record.offset)
            self.timestamps_ms.append(record.timestamp)
            self.keys.append(record.key)
            self.values.append(record.value)
            self.headers.append(record.headers)


def all_partitions(topics: Iterable[str], partitions: int) -> list[tuple[str, int]]:
    """Return every (topic, partition); `partitions` is the count of topics that fix none."""
    return [
        (topic, number)
        for topic in topics
        for number in range(TOPICS[topic].partitions or partitions)
    ]


class LogReader:
    """Reads the given topics from their beginnings, further with every `advance`."""

    def __init__(self, bootstrap: str, places: Iterable[tuple[str, int]]) -> None:
        """Read these partitions, given as (topic, partition)."""
        self._assigned = [TopicPartition(topic, number) for topic, number in places]
        self.logs = {place.topic: Log(place.topic) for place in self._assigned}
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=50,
        )
        self.first: Offsets = {}

    async def __aenter__(self) -> Self:
        """Connect, and stand at the beginning of every partition."""
        async with asyncio.timeout(READ_WITHIN_S):
            await self._consumer.start()
            self._consumer.assign(self._assigned)
            beginnings = await self._consumer.beginning_offsets(self._assigned)
        for partition, offset in beginnings.items():
            self._consumer.seek(partition, offset)
        self.first = {(p.topic, p.partition): offset for p, offset in beginnings.items()}
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def start_near_end(self, records: int) -> None:
        """Pass over all but about the last so many records of each partition."""
        async with asyncio.timeout(READ_WITHIN_S):
            ends = await self._consumer.end_offsets(self._assigned)
        for partition, end in ends.items():
            first = self.first[partition.topic, partition.partition]
            self._consumer.seek(partition, max(first, end - records))

    async def advance(self) -> Offsets:
        """Read on to the last stable offsets of this moment and return them."""
        async with asyncio.timeout(READ_WITHIN_S):
            ends = await self._consumer.end_offsets(self._assigned)
        await self._read_to(ends)
        return {(p.topic, p.partition): offset for p, offset in ends.items()}

    async def _read_to(self, ends: dict[TopicPartition, int]) -> None:
        """Beyond `ends` nothing is kept out: what arrives with the last fetch stays in order."""
        deadline = time.monotonic() + READ_WITHIN_S
        behind = set(ends)
        while behind:
            batches = await self._consumer.getmany(timeout_ms=100, max_records=_RECORDS_MAX)
            for partition, records in batches.items():
                self.logs[partition.topic].extend(records)
            behind = {p for p in behind if await self._consumer.position(p) < ends[p]}
            if time.monotonic() > deadline:
                names = ", ".join(f"{p.topic}[{p.partition}]" for p in sorted(behind))
                raise Unavailable(f"not read to the end within {READ_WITHIN_S:.0f} s: {names}")
