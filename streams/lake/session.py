"""One session of the lake's sink: read the log from where the tables end, and land.

Reading and landing overlap: one thread decodes, writes and commits while the event loop fills the
buffers, which are bounded. Whatever goes wrong in a landing ends the session and drops the buffers;
the next one reads the tables anew, so no outcome is ever guessed. Kafka's committed offsets are
written for lag tools and never read.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas import logs
from schemas.errors import Unavailable
from schemas.metrics import READY
from streams.lake import metrics
from streams.lake.bronze import landing
from streams.lake.bronze.commit import Landed, OpenTable
from streams.lake.bronze.landing import Batch
from streams.lake.buffer import Buffer
from streams.lake.settings import BUFFER_BYTES_MAX, Settings

STOP_S: Final = 1.0
_POLL_MS: Final = 200
_POLL_LANDING_MS: Final = 20
_FETCH_RECORDS_MAX: Final = 5_000
_HINT_S: Final = 2.0
_DRAIN_S: Final = 2.5


@dataclass(slots=True)
class Lane:
    """One topic's way into the lake."""

    table: OpenTable
    buffer: Buffer
    partitions: list[int]


class Session:
    """Reads and lands with tables that are open and a reader that has started."""

    def __init__(
        self,
        settings: Settings,
        pool: ThreadPoolExecutor,
        reader: AIOKafkaConsumer,
        lanes: dict[str, Lane],
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._reader = reader
        self._lanes = lanes
        self._landing: asyncio.Future[Landed] | None = None
        self._batch: Batch | None = None
        self._hinted_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Land until `stop`; raises Fenced, Unavailable, Corrupt or a KafkaError."""
        await self._seek()
        READY.set(1)
        logs.get().info("lake session began", topics=len(self._lanes))
        while not stop.is_set():
            self._settle()
            await self._launch(force=self._full())
            if self._full() and self._landing is not None:
                await asyncio.wait({self._landing}, timeout=_POLL_MS / 1000)
            else:
                await self._read()
            await self._show()
        await self._drain()

    async def _seek(self) -> None:
        """Assign every partition and go to where its table ends, or to the log's first record."""
        lane_of = {
            TopicPartition(topic, partition): lane
            for topic, lane in self._lanes.items()
            for partition in lane.partitions
        }
        first = await self._reader.beginning_offsets(list(lane_of))
        end = await self._reader.end_offsets(list(lane_of))
        starts = {}
        for tp, lane in lane_of.items():
            stored = lane.buffer.stored.get(tp.partition)
            starts[tp] = landing.start_at(stored, first[tp], end[tp])
            if stored is not None and starts[tp] > stored:
                lane.buffer.lost[tp.partition] = (stored, starts[tp])
                metrics.LOST.labels(tp.topic).inc(starts[tp] - stored)
                logs.get().error(
                    "the log dropped records before they landed: raise the topic's retention",
                    topic=tp.topic,
                    partition=tp.partition,
                    first=stored,
                    end=starts[tp],
                )
        self._reader.assign(list(lane_of))
        for tp, offset in starts.items():
            self._reader.seek(tp, offset)

    async def _read(self) -> None:
        fetched = await self._reader.getmany(
            timeout_ms=_POLL_MS if self._landing is None else _POLL_LANDING_MS,
            max_records=min(_FETCH_RECORDS_MAX, self._settings.rows_max),
        )
        now = time.monotonic()
        for tp, records in fetched.items():
            self._lanes[tp.topic].buffer.add(tp.partition, records, now)

    def _full(self) -> bool:
        buffers = [lane.buffer for lane in self._lanes.values()]
        held = sum(buffer.rows for buffer in buffers)
        return (
            held >= self._settings.rows_max
            or sum(buffer.bytes for buffer in buffers) >= BUFFER_BYTES_MAX
        )

    async def _launch(self, *, force: bool) -> None:
        """Start landing the topic that is due longest; with `force`, the fullest one."""
        if self._landing is not None:
            return
        now = time.monotonic()
        interval, rows_max = self._settings.commit_interval_s, self._settings.rows_max
        lanes = [lane for lane in self._lanes.values() if lane.buffer.due(now, interval, rows_max)]
        if force:
            lane = max(self._lanes.values(), key=lambda lane: lane.buffer.weight)
        elif lanes:
            lane = min(lanes, key=lambda lane: lane.buffer.since)
        else:
            return
        positions = {
            partition: await self._reader.position(TopicPartition(lane.buffer.topic, partition))
            for partition in lane.partitions
        }
        self._batch = lane.buffer.cut(positions, rows_max, now)
        self._landing = asyncio.get_running_loop().run_in_executor(
            self._pool, lane.table.land, self._batch
        )

    def _settle(self) -> None:
        """Take the result of a landing that has ended; its error ends the session."""
        if self._landing is None or not self._landing.done():
            return
        done, batch = self._landing, self._batch
        self._landing = self._batch = None
        assert batch is not None
        landed = done.result()
        self._lanes[batch.topic].buffer.landed(batch)
        _count(batch, landed)

    async def _drain(self) -> None:
        """Land what has been read, as far as time allows; the next session reads the rest again."""
        deadline = time.monotonic() + _DRAIN_S
        while time.monotonic() < deadline:
            if self._landing is not None:
                await asyncio.wait({self._landing}, timeout=deadline - time.monotonic())
            self._settle()
            if not any(lane.buffer.rows for lane in self._lanes.values()):
                break
            await self._launch(force=True)
        left = sum(lane.buffer.rows for lane in self._lanes.values())
        await self._hint(STOP_S)
        logs.get().info("lake session ended", left_unlanded=left)

    async def _show(self) -> None:
        """Now and then: metrics of lag, offsets for lag tools, and a look for new partitions."""
        now = time.monotonic()
        if now - self._hinted_at < _HINT_S:
            return
        self._hinted_at = now
        for topic, lane in self._lanes.items():
            lag = 0
            for partition in lane.partitions:
                end = self._reader.highwater(TopicPartition(topic, partition))
                lag += max(0, (end or 0) - self._landed_to(lane, partition, end or 0))
            metrics.LAG.labels(topic).set(lag)
            known = self._reader.partitions_for_topic(topic)
            if known and len(known) > len(lane.partitions):
                raise Unavailable(f"topic {topic} has grown to {len(known)} partitions")
        await self._hint(_HINT_S)

    def _landed_to(self, lane: Lane, partition: int, position: int) -> int:
        """Where everything has landed: the reader's position when nothing waits, else the table's
        end.
        """
        waits = self._batch is not None and self._batch.topic == lane.buffer.topic
        if lane.buffer.idle(partition) and not waits:
            return position
        return lane.buffer.stored.get(partition, 0)

    async def _hint(self, within_s: float) -> None:
        offsets: dict[Any, int] = {}
        for topic, lane in self._lanes.items():
            for partition in lane.partitions:
                tp = TopicPartition(topic, partition)
                offsets[tp] = self._landed_to(lane, partition, await self._reader.position(tp))
        try:
            await asyncio.wait_for(self._reader.commit(offsets), within_s)
        except (KafkaError, TimeoutError) as error:
            logs.get().debug("offsets for lag tools were not written", error=repr(error))


def _count(batch: Batch, landed: Landed) -> None:
    topic = batch.topic
    metrics.ROWS.labels(topic).inc(landed.rows)
    metrics.REJECTS.labels(topic).inc(landed.rejects)
    metrics.COMMIT_ROWS.labels(topic).observe(landed.rows)
    metrics.COMMIT_SECONDS.labels(topic).observe(landed.seconds)
    newest_ms = max((record.timestamp for record in batch.records), default=0)
    if newest_ms:
        metrics.FRESHNESS.labels(topic).set(max(0.0, time.time() - newest_ms / 1000))
    logs.get().debug(
        "landed",
        topic=topic,
        rows=landed.rows,
        rejects=landed.rejects,
        ms=round(landed.seconds * 1000),
    )
