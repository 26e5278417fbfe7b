"""What tests of the sinks share: real processes, a producer of transactions, the log read back."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from deploy.local.child import Child, Command, wait_for
from deploy.local.ports import free_port
from deploy.local.units import serves

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
DRAIN_S = 60.0

Sent = tuple[int, bytes | None, bytes | None]
"""Partition, key, value."""


@dataclass
class Sink:
    """One process of a module, started as often as a test kills it."""

    module: str
    folder: Path
    variables: dict[str, str]
    name: str = "sink-0"
    child: Child | None = None
    port: int = field(default_factory=free_port)

    def start(self, crash_point: str = "") -> None:
        """Start it; with a crash point, to die there."""
        command = Command(
            name=self.name,
            argv=(sys.executable, "-m", self.module),
            log=self.folder / f"{self.name}.log",
            env={name: value for name, value in os.environ.items() if name[:9] != "HEADRACE_"}
            | self.variables
            | {
                "HEADRACE_WORKER": self.name,
                "HEADRACE_METRICS_PORT": str(self.port),
                "HEADRACE_CRASH_POINT": crash_point,
            },
            cwd=ROOT,
        )
        self.child = Child(command)
        self.child.start()

    def await_ready(self) -> None:
        """Return when it serves."""
        assert wait_for(self.ready, START_S), self.log

    def ready(self) -> bool:
        return serves(f"http://127.0.0.1:{self.port}/metrics", None)

    def await_death(self) -> None:
        """Return when it has died by itself."""
        assert wait_for(lambda: not self.running.running(), START_S), f"it lives on: {self.log}"

    @property
    def running(self) -> Child:
        assert self.child is not None
        return self.child

    @property
    def log(self) -> str:
        """The end of what it said."""
        return (self.folder / f"{self.name}.log").read_text()[-4000:]


@contextmanager
def ended(*sinks: Sink) -> Iterator[None]:
    """End the processes, whatever happens."""
    try:
        yield
    finally:
        for sink in sinks:
            if sink.child is not None:
                sink.child.kill()


@asynccontextmanager
async def producing(kafka: str, name: str) -> AsyncIterator[Transactions]:
    """A producer of transactions."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka, transactional_id=name, request_timeout_ms=10_000
    )
    await producer.start()
    try:
        yield Transactions(producer)
    finally:
        await producer.stop()


@dataclass
class Transactions:
    """Writes records in transactions, committed or not: both leave gaps in the offsets."""

    producer: Any

    async def write(self, records: Iterable[tuple[str, *Sent]], *, commit: bool = True) -> None:
        await self.producer.begin_transaction()
        for topic, partition, key, value in records:
            await self.producer.send(topic, value, key, partition)
        await self.producer.flush()
        if commit:
            await self.producer.commit_transaction()
        else:
            await self.producer.abort_transaction()


async def committed(kafka: str, topics: Iterable[str], partitions: int = 4) -> dict[str, list[Any]]:
    """Read all committed records of some topics."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, isolation_level="read_committed")
    await consumer.start()
    try:
        places = [TopicPartition(topic, p) for topic in topics for p in range(partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(places)
        found: dict[str, list[Any]] = {place.topic: [] for place in places}
        while any([await consumer.position(place) < ends[place] for place in places]):
            fetched = await consumer.getmany(timeout_ms=500)
            for place, records in fetched.items():
                found[place.topic] += records
        return found
    finally:
        await consumer.stop()


async def caught_up(kafka: str, group: str, topics: Iterable[str], partitions: int = 4) -> bool:
    """Tell whether a group's offsets, which sinks write for lag tools, are the log's ends."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, isolation_level="read_committed")
    await admin.start()
    await consumer.start()
    try:
        places = [TopicPartition(topic, p) for topic in topics for p in range(partitions)]
        ends = await consumer.end_offsets(places)
        offsets = await admin.list_consumer_group_offsets(group)
        return all(
            (place in offsets and offsets[place].offset == end) or not end
            for place, end in ends.items()
        )
    finally:
        await consumer.stop()
        await admin.close()
