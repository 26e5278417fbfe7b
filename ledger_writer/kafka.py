"""One partition's log on Kafka: a consumer and an idempotent producer of its own.

Records are read committed, from exactly the offset asked for, and never skipped: an offset that
the log no longer has is Corrupt, not a reset. A send returns when every batch of it is durable.
Each partition has its own clients, so that trouble ends its session and no other's.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from ledger_writer.clients import (
    acknowledged,
    builders,
    running,
    stop_producer,
    translated,
)
from ledger_writer.event import COMMANDS, EVENTS
from ledger_writer.intake import TRACEPARENT
from ledger_writer.port import Event, Record
from schemas.errors import Corrupt, Poisoned
from schemas.topics import dead_letters
from schemas.wire import decoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

START_WITHIN_S: Final = 10.0
SEND_WITHIN_S: Final = 15.0
REQUEST_TIMEOUT_MS: Final = 11_000
TAKE_WAIT_MS: Final = 200
LINGER_S: Final = 0.002
"""Wait for more once there is something: bounds the commits of a trickle."""

FETCH_BYTES: Final = 2 * 1024 * 1024
BATCH_BYTES: Final = 1024 * 1024
"""Events of one commit fit one batch, as a rule."""

REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
TAIL_RECORDS: Final = 5_000
"""How far back `ledger.events` is read for the highest position: more than one batch."""


class KafkaLogs:
    """Opens logs on one cluster."""

    def __init__(self, bootstrap: str, worker: str) -> None:
        self._bootstrap = bootstrap
        self._worker = worker

    @asynccontextmanager
    async def open(self, partition: int, next_offset: int) -> AsyncIterator[KafkaLog]:
        """Connect; Unavailable when the broker does not answer in time."""
        name = f"{self._worker}-{partition}"
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=name,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=FETCH_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            retry_backoff_ms=50,
        )
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=name,
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            max_request_size=REQUEST_BYTES_MAX,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            retry_backoff_ms=50,
        )
        async with AsyncExitStack() as stack:
            with translated("start"):
                async with asyncio.timeout(START_WITHIN_S):
                    await stack.enter_async_context(running(consumer, consumer.stop))
                    await stack.enter_async_context(
                        running(producer, lambda: stop_producer(producer))
                    )
                    shown = await _highest_position(consumer, partition)
                    commands = TopicPartition(COMMANDS, partition)
                    await _check_reach(consumer, commands, next_offset)
                    consumer.assign([commands])
                    consumer.seek(commands, next_offset)
            yield KafkaLog(consumer, producer, commands, next_offset, shown)


class KafkaLog:
    """One partition's log; see `port.Log`."""

    def __init__(
        self, consumer: Any, producer: Any, commands: TopicPartition, next_offset: int, shown: int
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._commands = commands
        self._shown = shown
        self.position = next_offset

    @property
    def lag(self) -> int:
        """How far the log's stable end is ahead of what was taken."""
        end: int | None = self._consumer.last_stable_offset(self._commands)
        return max(0, (end or 0) - self.position)

    async def take(self, records_max: int) -> list[Record]:
        """Return what there is, after a short linger for more; none after a bounded wait."""
        found = await self._fetched(records_max, TAKE_WAIT_MS)
        if found and len(found) < records_max:
            await asyncio.sleep(LINGER_S)
            found += await self._fetched(records_max - len(found), 0)
        return found

    async def bury(self, dead: Sequence[tuple[Record, str]]) -> None:
        """Append records to the dead letters, byte for byte, with the reason in the headers."""
        origin = [
            ("dlq.task", b"ledger_writer"),
            ("dlq.topic", COMMANDS.encode()),
            ("dlq.partition", b"%d" % self._commands.partition),
        ]
        await self._send(
            dead_letters(COMMANDS),
            [
                (
                    record.key,
                    record.value,
                    [
                        *record.headers,
                        *origin,
                        ("dlq.offset", b"%d" % record.offset),
                        ("dlq.reason", reason.encode()),
                    ],
                )
                for record, reason in dead
            ],
        )

    async def publish(self, events: Sequence[Event]) -> None:
        """Append events in order."""
        await self._send(
            EVENTS,
            [
                (
                    event.key,
                    event.value,
                    [] if event.traceparent is None else [(TRACEPARENT, event.traceparent)],
                )
                for event in events
            ],
        )

    async def published_position(self) -> int:
        """Return the highest position that `ledger.events` showed when this log was opened."""
        return self._shown

    async def _fetched(self, records_max: int, wait_ms: int) -> list[Record]:
        with translated("fetch"):
            fetched = await self._consumer.getmany(
                self._commands, timeout_ms=wait_ms, max_records=records_max
            )
            position = await self._consumer.position(self._commands)
        records = fetched.get(self._commands, ())
        if records and records[0].offset < self.position:
            raise Corrupt(f"{self._commands}: offset {records[0].offset} came again")
        self.position = position
        return [
            Record(record.offset, record.timestamp, record.key, record.value, record.headers)
            for record in records
        ]

    async def _send(
        self, topic: str, items: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]
    ) -> None:
        now_ms = int(time.time() * 1000)
        batches = builders(self._producer, items, now_ms)
        with translated(f"send to {topic}"):
            async with asyncio.timeout(SEND_WITHIN_S):
                await acknowledged(self._producer, batches, topic, self._commands.partition)


async def _check_reach(consumer: Any, commands: TopicPartition, next_offset: int) -> None:
    """Refuse to start where the log does not hold what comes next."""
    first = (await consumer.beginning_offsets([commands]))[commands]
    end = (await consumer.end_offsets([commands]))[commands]
    if not first <= next_offset <= end:
        raise Corrupt(
            f"{commands.topic}[{commands.partition}] holds offsets {first} to {end}, the ledger"
            f" needs {next_offset}: commands were deleted before they were decided, or this"
            " database belongs to another log"
        )


async def _highest_position(consumer: Any, partition: int) -> int:
    """Return the highest position among the last records of `ledger.events`, 0 if there are none.

    The last record need not have it: a writer that was paused may have repeated older ones.
    """
    events = TopicPartition(EVENTS, partition)
    first = (await consumer.beginning_offsets([events]))[events]
    end = (await consumer.end_offsets([events]))[events]
    if first == end:
        return 0
    consumer.assign([events])
    consumer.seek(events, max(first, end - TAIL_RECORDS))
    decode = decoder(EVENTS)
    highest = 0
    while await consumer.position(events) < end:
        for record in (await consumer.getmany(events, timeout_ms=TAKE_WAIT_MS)).get(events, ()):
            try:
                highest = max(highest, decode(record.value)["position"])
            except Poisoned as poison:
                raise Corrupt(f"{events}: offset {record.offset} is not an event") from poison
    return highest
