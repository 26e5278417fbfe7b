"""Watch payments end, as any consumer would: `read_committed`, from `payments.events`.

Talks to Kafka, joins no group, commits nothing. What is noted is when this process saw the final
event of each payment, and how it ended. It polls no more often than every few milliseconds: it
shares the machine with what it measures.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.wire import decoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadtest.stack import Stack

TOPIC: Final = "payments.events"
_PAUSE_S: Final = 0.01
_FINAL: Final = {"payment.settled": "settled", "payment.rejected": "rejected"}


@dataclass(frozen=True, slots=True)
class End:
    """How and when a payment ended: `seen_at_s` is when we saw it, `written_at_s` the record's."""

    status: str
    reason: str | None
    seen_at_s: float
    written_at_s: float


class Observer:
    """Collects ends by payment id, from now on."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._task: asyncio.Task[None] | None = None
        self.ends: dict[str, End] = {}
        self.accepted: set[str] = set()
        self.newest_written_at_s = 0.0

    async def __aenter__(self) -> Self:
        """Connect, and watch from the present end of the log."""
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._stack.kafka,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="latest",
            fetch_max_wait_ms=250,
        )
        await self._consumer.start()
        partitions = [TopicPartition(TOPIC, n) for n in range(self._stack.partitions)]
        self._consumer.assign(partitions)
        for partition, end in (await self._consumer.end_offsets(partitions)).items():
            self._consumer.seek(partition, end)
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._consumer.stop()

    async def until_ended(self, payment_ids: Iterable[str], within_s: float) -> set[str]:
        """Wait until each of these has ended; return those that have not in time."""
        deadline = time.monotonic() + within_s
        open_ids = set(payment_ids) - self.ends.keys()
        while open_ids and time.monotonic() < deadline:
            assert self._task is not None
            if self._task.done():
                self._task.result()
            await asyncio.sleep(_PAUSE_S)
            open_ids -= self.ends.keys()
        return open_ids

    async def _watch(self) -> None:
        decode = decoder(TOPIC)
        while True:
            batches = await self._consumer.getmany(timeout_ms=500, max_records=5_000)
            seen_at_s = time.time()
            for records in batches.values():
                for record in records:
                    event = decode(record.value)
                    status = _FINAL.get(event["type"])
                    if status is not None:
                        written = record.timestamp / 1000
                        end = End(status, event["reason"], seen_at_s, written)
                        self.ends[event["resource_id"]] = end
                        self.newest_written_at_s = max(self.newest_written_at_s, written)
                    elif event["type"] == "payment.accepted":
                        self.accepted.add(event["resource_id"])
            await asyncio.sleep(_PAUSE_S)
