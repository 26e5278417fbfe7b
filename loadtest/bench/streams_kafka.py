"""The bench's own broker and what is written to and read from it besides what is measured.

Topics are made for a leg and deleted after it, and groups' offsets with them, so that every leg
begins from nothing. Reading is `read_committed`, to the end and not beyond.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from deploy.local.admin import connected
from deploy.local.kafka import Kafka
from loadtest.bench.streams_records import Keyed

BATCH_BYTES: Final = 512 * 1024
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
COMPACTED: Final = {"cleanup.policy": "compact", "max.message.bytes": str(MESSAGE_BYTES_MAX)}
PLAIN: Final = {"max.message.bytes": str(MESSAGE_BYTES_MAX)}
GONE_WITHIN_S: Final = 20.0

Timed = tuple[int, bytes, bytes, int]
"""A record to write: partition, key, value, timestamp in milliseconds."""


def broker(folder: Path, cache: Path, java: str | None) -> Kafka:
    """Return the broker that keeps its data below `folder`; not started."""
    return Kafka(folder / "kafka", cache, folder / "kafka.log", java)


async def create(bootstrap: str, topics: Mapping[str, Mapping[str, str]], partitions: int) -> None:
    """Create topics with these settings."""
    async with connected(bootstrap) as admin:
        new = [
            NewTopic(name, partitions, 1, topic_configs=dict(config))
            for name, config in topics.items()
        ]
        answer = await admin.create_topics(new)
        wrong = [error for error in answer.topic_errors if error[1] != 0]
        assert not wrong, f"the broker refuses topics: {wrong}"


async def delete(bootstrap: str, topics: Iterable[str]) -> None:
    """Delete those topics that exist and wait until the broker knows it; groups lose their
    offsets in them.
    """
    async with connected(bootstrap) as admin:
        gone = set(topics) & set(await admin.list_topics())
        if gone:
            await admin.delete_topics(sorted(gone))
        deadline = time.monotonic() + GONE_WITHIN_S
        while gone & set(await admin.list_topics()):
            assert time.monotonic() < deadline, f"topics do not go away: {gone}"
            await asyncio.sleep(0.05)


async def fill(bootstrap: str, topic: str, partitions: int, records: Iterable[Timed]) -> int:
    """Write records in large batches; returns how many, when all are acknowledged."""
    producer = await open_producer(bootstrap)
    written = 0
    waiting: set[Any] = set()
    builders = [producer.create_batch() for _ in range(partitions)]
    try:
        for partition, key, value, at_ms in records:
            append = builders[partition].append
            if append(timestamp=at_ms, key=key, value=value, headers=[]) is None:
                full, builders[partition] = builders[partition], producer.create_batch()
                waiting.add(await producer.send_batch(full, topic, partition=partition))
                builders[partition].append(timestamp=at_ms, key=key, value=value, headers=[])
                waiting = {each for each in waiting if not each.done() or each.exception()}
            written += 1
        for partition, builder in enumerate(builders):
            if builder.record_count():
                waiting.add(await producer.send_batch(builder, topic, partition=partition))
        await asyncio.gather(*waiting)
    finally:
        await producer.stop()
    return written


async def open_producer(bootstrap: str) -> Any:
    """Return a started producer for large batches; the caller stops it."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES,
        max_request_size=MESSAGE_BYTES_MAX,
    )
    await producer.start()
    return producer


def stamped(records: Iterable[Keyed]) -> Iterator[Timed]:
    """Give records the wall clock's time."""
    for partition, key, value in records:
        yield partition, key, value, int(time.time() * 1000)


async def read(bootstrap: str, topic: str) -> AsyncIterator[tuple[int, list[Any]]]:
    """Walk what is committed of a topic, as (partition, records) in order per partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=MESSAGE_BYTES_MAX,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    try:
        numbers = await _partitions(consumer, topic)
        tps = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                yield tp.partition, records
    finally:
        await consumer.stop()


@dataclass(slots=True)
class Outcome:
    """What a topic came to: how many records, the sum of their hashes, each key's last value.

    Order between keys is left open: systems may spread keys over partitions as they like.
    """

    records: int = 0
    hashes: int = 0
    last: dict[bytes, bytes] = field(default_factory=dict)

    def add(self, key: bytes, value: bytes) -> None:
        """Take in one record."""
        self.records += 1
        found = hashlib.blake2b(key + value, digest_size=8).digest()
        self.hashes = (self.hashes + int.from_bytes(found, "big")) % 2**64
        self.last[key] = value

    def differences(self, other: Outcome) -> int:
        """Return how many keys end differently, or 1 where only what came before differs."""
        keys = self.last.keys() | other.last.keys()
        ends = sum(self.last.get(key) != other.last.get(key) for key in keys)
        same = (self.records, self.hashes) == (other.records, other.hashes)
        return ends or int(not same)


async def outcome(bootstrap: str, topic: str) -> Outcome:
    """Read what is committed of a topic."""
    total = Outcome()
    async for _, records in read(bootstrap, topic):
        for record in records:
            total.add(record.key or b"", record.value or b"")
    return total


def outcome_of(records: Iterable[Keyed]) -> Outcome:
    """Return what a topic of these records comes to."""
    total = Outcome()
    for _, key, value in records:
        total.add(key, value)
    return total


async def committed(admin: AIOKafkaAdminClient, group: str, topics: Collection[str]) -> int:
    """Return how far a group is in its topics, summed over partitions."""
    try:
        offsets = await admin.list_consumer_group_offsets(group)
    except KafkaError:
        return 0  # the group does not exist yet, or its coordinator moves
    return sum(max(0, said.offset) for tp, said in offsets.items() if tp.topic in topics)


@asynccontextmanager
async def lengths(bootstrap: str) -> AsyncIterator[Callable[[str], Awaitable[int]]]:
    """Give a function that tells how long a topic is: offsets taken, committed or not."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()

    async def length(topic: str) -> int:
        tps = [TopicPartition(topic, number) for number in await _partitions(consumer, topic)]
        return sum((await consumer.end_offsets(tps)).values())

    try:
        yield length
    finally:
        await consumer.stop()


async def _partitions(consumer: Any, topic: str) -> set[int]:
    # The public call reads a cache.
    cluster = await consumer._client.fetch_all_metadata()  # noqa: SLF001
    found: set[int] = cluster.partitions_for_topic(topic) or set()
    return found
