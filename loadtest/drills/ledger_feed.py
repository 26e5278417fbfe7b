"""Writes a run's commands as the streams do: in transactions, some of which abort.

Aborted records and markers take offsets, so those of commands have gaps. It also tells where the
log ends and which events are published, by reading on from where it read before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from deploy.local.admin import connected, ensure_topics
from loadtest.drills.ledger_check import EVENTS
from loadtest.drills.ledger_load import COMMANDS, Fed
from loadtest.drills.ledger_watch import TOPICS
from loadtest.kafka_log import LogReader, all_partitions
from schemas.topics import TOPICS as TABLE
from schemas.wire import decoder

ABORTED: Final = 0.06
TRACE: Final = [("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
GONE_WITHIN: Final = 400


@dataclass(slots=True)
class Feeder:
    """One run's producer and the reader of its events."""

    bootstrap: str
    producer: Any
    reader: LogReader
    rng: Random
    partitions: int
    _read: int = 0

    async def feed(self, records: Sequence[Fed]) -> int:
        """Write records in one transaction; returns how many, when they are committed."""
        if not records:
            return 0
        if self.rng.random() < ABORTED:
            await self._transaction(records[:3], commit=False)
        await self._transaction(records, commit=True)
        return len(records)

    async def ends(self) -> dict[int, int]:
        """Return, by partition, what the fence must have reached: one beyond the last command."""
        async with LogReader(
            self.bootstrap,
            all_partitions([COMMANDS], self.partitions),
        ) as log:
            await log.advance()
            found = log.logs[COMMANDS]
        ends = dict.fromkeys(range(self.partitions), 0)
        for partition, offset in zip(found.partitions, found.offsets, strict=True):
            ends[partition] = offset + 1
        return ends

    async def events(self) -> list[dict[str, Any]]:
        """Return the events that were published since this was asked last."""
        await self.reader.advance()
        log, decode = self.reader.logs[EVENTS], decoder(EVENTS)
        found = [decode(value) for value in log.values[self._read :] if value is not None]
        self._read = len(log)
        return found

    async def _transaction(self, records: Sequence[Fed], *, commit: bool) -> None:
        await self.producer.begin_transaction()
        sent = [
            await self.producer.send(
                COMMANDS,
                fed.value,
                fed.key,
                partition=fed.partition,
                timestamp_ms=fed.at_ms,
                headers=TRACE,
            )
            for fed in records
        ]
        await asyncio.gather(*sent)
        if commit:
            await self.producer.commit_transaction()
        else:
            await self.producer.abort_transaction()


@asynccontextmanager
async def open_feeder(bootstrap: str, seed: int, partitions: int) -> AsyncIterator[Feeder]:
    """Make the topics anew and connect."""
    await _fresh_topics(bootstrap, partitions)
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id="drill-feeder", linger_ms=1
    )
    await producer.start()
    try:
        async with LogReader(bootstrap, all_partitions([EVENTS], partitions)) as reader:
            yield Feeder(bootstrap, producer, reader, Random(seed), partitions)
    finally:
        await producer.stop()


async def _fresh_topics(bootstrap: str, partitions: int) -> None:
    async with connected(bootstrap) as admin:
        old = set(await admin.list_topics()) & set(TOPICS)
        if old:
            await admin.delete_topics(sorted(old))
        for _ in range(GONE_WITHIN):
            if not old & set(await admin.list_topics()):
                break
            await asyncio.sleep(0.02)
    await ensure_topics(bootstrap, partitions, [TABLE[name] for name in TOPICS])
