"""What the drills do at the broker: make and delete a run's topics, feed it, read what it left.

One producer and one admin client serve all runs of a process. Reading is `read_committed`, to the
last stable offset.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from deploy.local.admin import connected
from loadtest.drills.streams_load import SMALL_BYTES_MAX, Fed
from loadtest.drills.streams_model import Logged

INPUTS: Final = ("in", "side")
WRITTEN: Final = ("out", "side.out", "fired", "small", "in.dlq", "side.dlq")
CLEANER_BACKOFF_MS: Final = 200
NODE_ID: Final = "1"
READ_WITHIN_S: Final = 60.0
_FOREVER: Final = {"retention.ms": "-1"}
"""Made-up timestamps lie years back: retention would take the records away at once."""
_COMPACT: Final = {"cleanup.policy": "compact"}
EAGER_COMPACTION: Final = _COMPACT | {
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
    "max.compaction.lag.ms": "200",
}
"""A changelog that is rolled and compacted as fast as the broker can."""


@dataclass(frozen=True, slots=True)
class Broker:
    """The clients that all runs share."""

    bootstrap: str
    admin: AIOKafkaAdminClient
    producer: Any

    async def create(self, prefix: str, partitions: int, *, compacting: bool) -> None:
        """Make a run's topics."""
        configs = {f"{prefix}.{name}": _FOREVER for name in INPUTS + WRITTEN}
        configs |= {f"{prefix}.{name}": _FOREVER for name in ("timers", "timers.dlq")}
        configs[f"{prefix}.small"] = _FOREVER | {"max.message.bytes": str(SMALL_BYTES_MAX)}
        configs[f"{prefix}.changelog"] = EAGER_COMPACTION if compacting else _COMPACT
        new = [NewTopic(name, partitions, 1, topic_configs=each) for name, each in configs.items()]
        answer = await self.admin.create_topics(new)
        wrong = [error for error in answer.topic_errors if error[1] != 0]
        assert not wrong, f"the broker refuses topics: {wrong}"

    async def delete(self, prefix: str) -> None:
        """Delete a run's topics."""
        topics = [name for name in await self.admin.list_topics() if name.startswith(f"{prefix}.")]
        if topics:
            await self.admin.delete_topics(topics)

    async def feed(self, prefix: str, records: Iterable[Fed]) -> int:
        """Write input records; returns how many, when they are acknowledged."""
        now_ms = int(time.time() * 1000)
        waiting = []
        for fed in records:
            topic = f"{prefix}.side" if fed.side else f"{prefix}.in"
            at_ms = now_ms if fed.at_ms is None else fed.at_ms
            waiting.append(
                await self.producer.send(
                    topic, fed.value, fed.key, partition=fed.partition, timestamp_ms=at_ms
                )
            )
        await asyncio.gather(*waiting)
        return len(waiting)

    async def committed(self, prefix: str) -> dict[TopicPartition, int]:
        """Return what the run's group has committed."""
        try:
            offsets = await self.admin.list_consumer_group_offsets(prefix)
        except KafkaError:
            return {}
        return {tp: said.offset for tp, said in offsets.items() if said.offset >= 0}

    async def read(
        self, prefix: str, names: Iterable[str], partitions: int
    ) -> dict[tuple[str, int], list[Logged]]:
        """Read what is committed of these topics, by name and partition."""
        tps = [TopicPartition(f"{prefix}.{name}", n) for name in names for n in range(partitions)]
        found: dict[tuple[str, int], list[Logged]] = {
            (tp.topic.removeprefix(f"{prefix}."), tp.partition): [] for tp in tps
        }
        async with asyncio.timeout(READ_WITHIN_S), _reader(self.bootstrap, tps) as consumer:
            ends = await consumer.end_offsets(tps)
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                    name = tp.topic.removeprefix(f"{prefix}.")
                    found[name, tp.partition].extend(_logged(record) for record in records)
        return found

    async def ends(self, prefix: str, names: Iterable[str], partitions: int) -> Mapping[Any, int]:
        """Return the last stable offsets."""
        tps = [TopicPartition(f"{prefix}.{name}", n) for name in names for n in range(partitions)]
        async with asyncio.timeout(READ_WITHIN_S), _reader(self.bootstrap, tps) as consumer:
            ends: Mapping[Any, int] = await consumer.end_offsets(tps)
            return ends

    async def hurry_compaction(self) -> None:
        """Have the broker look for something to compact several times a second."""
        value = {"log.cleaner.backoff.ms": str(CLEANER_BACKOFF_MS)}
        await self.admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, NODE_ID, value)])


@asynccontextmanager
async def open_broker(bootstrap: str) -> AsyncIterator[Broker]:
    """Connect the shared clients."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=5
    )
    await producer.start()
    try:
        async with connected(bootstrap) as admin:
            yield Broker(bootstrap, admin, producer)
    finally:
        await producer.stop()


@asynccontextmanager
async def _reader(bootstrap: str, tps: list[TopicPartition]) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        yield consumer
    finally:
        await consumer.stop()


def _logged(record: Any) -> Logged:
    return Logged(record.offset, record.timestamp, record.key, record.value, dict(record.headers))
