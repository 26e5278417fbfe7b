"""Latency of one hop: from the moment a record was due to be sent, to its output being visible.

Open loop: records are sent on a schedule that waits for nobody, a small batch per partition every
few milliseconds, all of which are due at that moment, and a late send counts against what is
measured. Batches are built before the first is due, so that the run has the machine for what is
measured; the cores that sending and reading still take are told. The n-th record of a partition
causes the n-th output of it, so nothing need be decoded. Output is seen by a `read_committed`
consumer: what no failure can take back.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from loadtest.bench.report import say
from loadtest.bench.streams_kafka import MESSAGE_BYTES_MAX, open_producer
from loadtest.bench.streams_meter import cpu_s, machine_s
from loadtest.generator.histogram import exact_quantile

TICK_S: Final = 0.01
WARM_SHARE: Final = 0.25
"""The first part of a run is not counted: caches fill, codecs and connections wake up."""

DRAIN_WITHIN_S: Final = 30.0

Ready = tuple[int, bytes, bytes]
Ticks = list[list[list[tuple[bytes, bytes]]]]
"""What is sent: per tick, per partition, (key, value) of each record."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds, the rate that was kept, and the cores that were spent meanwhile
    on measuring, and by the machine on nothing of this.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    records: int
    measuring: float
    others: float

    def row(self, name: str) -> dict[str, Any]:
        """Return a table's row."""
        return {
            "hop": name,
            "events/s": self.rate,
            "p50 ms": self.p50_ms,
            "p99 ms": self.p99_ms,
            "p99.9 ms": self.p999_ms,
            "records": self.records,
            "measuring cores": self.measuring,
            "others' cores": self.others,
        }


@dataclass(frozen=True, slots=True)
class Flow:
    """Records of one topic on their schedule; `after_s` shifts all of them."""

    topic: str
    ticks: Ticks
    after_s: float = 0.0


def cut(records: Iterable[Ready], per_second: float, seconds: float, partitions: int) -> Ticks:
    """Cut records into ticks of an even rate."""
    source = iter(records)
    ticks: Ticks = []
    sent = 0
    for number in range(1, round(seconds / TICK_S) + 1):
        wanted = round(number * TICK_S * per_second)
        tick: list[list[tuple[bytes, bytes]]] = [[] for _ in range(partitions)]
        for partition, key, value in islice(source, wanted - sent):
            tick[partition].append((key, value))
        sent = wanted
        ticks.append(tick)
    return ticks


async def measure(
    bootstrap: str, flows: Sequence[Flow], out_topic: str, pids: Sequence[int]
) -> Latency:
    """Send all flows and measure from the first one's records to `out_topic`; `pids` are the
    processes that do the work.
    """
    partitions = len(flows[0].ticks[0])
    seen = _Outputs(partitions)
    consumer = await _reader(bootstrap, out_topic, partitions)
    producer = await open_producer(bootstrap)
    batches = [_built(producer, flow) for flow in flows]
    gc.collect()
    gc.freeze()  # no collection that looks at all of them holds up the sending
    others_s, ours_s, began = _others_s(pids), time.process_time(), time.perf_counter()
    starts_at = began + 0.2
    sent = _schedule(flows[0], starts_at)
    expected = sum(len(each) for each in sent)
    reading = asyncio.create_task(seen.follow(consumer, expected))
    try:
        sending = zip(flows, batches, strict=True)
        await asyncio.gather(*(_send(producer, *each, starts_at) for each in sending))
        async with asyncio.timeout(DRAIN_WITHIN_S):
            await reading
    finally:
        reading.cancel()
        await producer.stop()
        await consumer.stop()
    took_s = time.perf_counter() - began
    cores = (time.process_time() - ours_s) / took_s, (_others_s(pids) - others_s) / took_s
    return _figures(sent, seen.at, len(flows[0].ticks) * TICK_S, cores)


def _others_s(pids: Sequence[int]) -> float:
    return machine_s() - sum(map(cpu_s, pids)) - time.process_time()


@dataclass(slots=True)
class _Outputs:
    """When each output became visible, per partition, in order."""

    partitions: int
    at: list[list[float]] = field(default_factory=list)

    async def follow(self, consumer: Any, expected: int) -> None:
        self.at = [[] for _ in range(self.partitions)]
        count = 0
        while count < expected:
            fetched = await consumer.getmany(timeout_ms=1_000)
            now = time.perf_counter()
            for tp, records in fetched.items():
                self.at[tp.partition].extend([now] * len(records))
                count += len(records)


async def _reader(bootstrap: str, topic: str, partitions: int) -> Any:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        max_partition_fetch_bytes=MESSAGE_BYTES_MAX,
        fetch_max_wait_ms=500,
    )
    await consumer.start()
    tps = [TopicPartition(topic, number) for number in range(partitions)]
    consumer.assign(tps)
    await consumer.seek_to_end(*tps)
    for tp in tps:
        await consumer.position(tp)
    return consumer


def _schedule(flow: Flow, starts_at: float) -> list[list[float]]:
    due: list[list[float]] = [[] for _ in flow.ticks[0]]
    for number, tick in enumerate(flow.ticks):
        for partition, records in enumerate(tick):
            due[partition].extend([starts_at + flow.after_s + number * TICK_S] * len(records))
    return due


def _built(producer: Any, flow: Flow) -> list[list[tuple[int, Any]]]:
    """Return the batches to send per tick, as (partition, batch). Their timestamps are as if the
    schedule began now, so a little before they are sent.
    """
    began = time.time()
    ticks = []
    for number, tick in enumerate(flow.ticks):
        at_ms = int((began + flow.after_s + number * TICK_S) * 1000)
        batches = []
        for partition, records in enumerate(tick):
            if records:
                batch = producer.create_batch()
                for key, value in records:
                    batch.append(timestamp=at_ms, key=key, value=value, headers=[])
                batches.append((partition, batch))
        ticks.append(batches)
    return ticks


async def _send(
    producer: Any, flow: Flow, ticks: list[list[tuple[int, Any]]], starts_at: float
) -> None:
    waiting: set[Any] = set()
    for number, batches in enumerate(ticks):
        due = starts_at + flow.after_s + number * TICK_S
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        for partition, batch in batches:
            waiting.add(await producer.send_batch(batch, flow.topic, partition=partition))
        waiting = {each for each in waiting if not each.done() or each.exception()}
    await asyncio.gather(*waiting)


def _figures(
    sent: list[list[float]],
    seen: list[list[float]],
    seconds: float,
    cores: tuple[float, float],
) -> Latency:
    taken: list[float] = []
    for due, visible in zip(sent, seen, strict=True):
        assert len(due) == len(visible), f"{len(due)} records sent, {len(visible)} came out"
        skip = int(WARM_SHARE * len(due))
        taken.extend(there - then for then, there in zip(due[skip:], visible[skip:], strict=True))
    taken.sort()
    assert taken, "a latency of nothing"
    total = sum(len(each) for each in sent)
    say(f"  {total:,} records in {seconds:.0f} s, {len(taken):,} counted")
    return Latency(
        rate=total / seconds,
        p50_ms=exact_quantile(taken, 0.5) * 1e3,
        p99_ms=exact_quantile(taken, 0.99) * 1e3,
        p999_ms=exact_quantile(taken, 0.999) * 1e3,
        records=len(taken),
        measuring=cores[0],
        others=cores[1],
    )
