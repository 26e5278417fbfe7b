"""One session of the views: join the group, claim what it gives us, apply batch after batch.

A partition is read from where Postgres says, never from Kafka's committed offsets, which are
written for lag tools only. Any fault ends the session; the next one joins and claims anew. Records
that can never be applied go to the dead letters and the rest goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from schemas import logs, wire
from schemas.crash import CrashPoint
from schemas.errors import Fenced, Poisoned, Unavailable
from schemas.metrics import READY
from streams.sink import ended
from streams.views import metrics
from streams.views.batch import Batch, fresh, moved, start_at
from streams.views.dead_letters import DeadLetters
from streams.views.rows import TOPICS, Rows, fold
from streams.views.settings import Settings
from streams.views.store import Claim, Store

GROUP: Final = "views"
_POLL_MS: Final = 200
_REQUEST_MS: Final = 10_000
_RETRY_MS: Final = 250
_HINT_S: Final = 2.0
_STOP_S: Final = 2.0

_DECODERS: Final = {topic: wire.decoder(topic) for topic in TOPICS}


async def run(settings: Settings, crash: CrashPoint, stop: asyncio.Event) -> None:
    """Run one session until `stop`; raises Fenced or Unavailable when another should follow."""
    metrics.SESSIONS.inc()
    store = await Store.open(settings.dsn, settings.worker)
    letters = DeadLetters(settings.kafka, settings.worker)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka,
        group_id=GROUP,
        group_instance_id=settings.worker,
        client_id=settings.worker,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=max(100, min(3_000, settings.session_timeout_ms // 4)),
        request_timeout_ms=_REQUEST_MS,
        retry_backoff_ms=_RETRY_MS,
        fetch_max_wait_ms=_POLL_MS,
    )
    try:
        await consumer.start()
        await _Session(settings, crash, consumer, store, letters).run(stop)
    except KafkaError as error:
        raise Unavailable(f"Kafka: {error!r}") from error
    finally:
        await ended(consumer.stop(), _STOP_S)
        await ended(letters.close(), _STOP_S)
        await store.close()


class _Session(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of the group; the lock is held while claims are used or change."""

    def __init__(
        self,
        settings: Settings,
        crash: CrashPoint,
        consumer: AIOKafkaConsumer,
        store: Store,
        letters: DeadLetters,
    ) -> None:
        self._settings = settings
        self._crash = crash
        self._consumer = consumer
        self._store = store
        self._letters = letters
        self._claims: dict[TopicPartition, Claim] = {}
        self._lock = asyncio.Lock()
        self._assigned: list[TopicPartition] | None = None
        self._hinted_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        self._consumer.subscribe(list(TOPICS), listener=self)
        while not stop.is_set():
            if self._assigned is not None:
                await self._claim()
            began = time.monotonic()
            fetched = await self._consumer.getmany(
                timeout_ms=_POLL_MS, max_records=self._settings.batch_max
            )
            if await self._take(fetched):
                rest = self._settings.commit_interval_s - (time.monotonic() - began)
                await asyncio.sleep(max(0.0, rest))
            await self._show()
        logs.get().info("views session ended")

    async def on_partitions_revoked(self, _revoked: Iterable[TopicPartition]) -> None:
        """Stop applying; the group goes on when the batch under way has ended."""
        async with self._lock:
            self._claims.clear()
            self._assigned = None

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Note them; until they are claimed, what is fetched of them is dropped."""
        self._assigned = list(assigned)

    async def _claim(self) -> None:
        """Take over what was assigned, and go to where the tables end."""
        async with self._lock:
            partitions, self._assigned = self._assigned or [], None
            claims: dict[tuple[str, int], Claim] = {}
            if partitions:
                first = await self._consumer.beginning_offsets(partitions)
                end = await self._consumer.end_offsets(partitions)
                claims = await self._store.claim((tp.topic, tp.partition) for tp in partitions)
            for tp in partitions:
                claim = claims[tp.topic, tp.partition]
                offset, dropped = start_at(claim.next, first[tp], end[tp])
                if dropped:
                    logs.get().error(
                        "the log dropped records before they were applied",
                        topic=tp.topic,
                        partition=tp.partition,
                        offsets=dropped,
                    )
                self._consumer.seek(tp, offset)
                self._claims[tp] = claim
        READY.set(1)
        logs.get().info("claimed", partitions=len(partitions))

    async def _take(self, fetched: dict[TopicPartition, list[Any]]) -> bool:
        """Apply what was fetched of claimed partitions; tell whether there was any."""
        async with self._lock:
            batch = Batch()
            for tp, records in fetched.items():
                claim = self._claims.get(tp)
                if claim is not None:
                    partition = (tp.topic, tp.partition)
                    batch.add(partition, fresh(records, claim.next), _DECODERS[tp.topic])
            if not batch.ends:
                return False
            for record, reason in batch.letters:
                await self._bury(record, reason)
            began = time.perf_counter()
            self._crash.at("before_commit")
            await self._apply(batch)
            self._crash.at("after_commit")
        _observe(fetched, time.perf_counter() - began)
        return True

    async def _apply(self, batch: Batch) -> None:
        """Apply a batch; one that Postgres can't hold is halved until one record stands alone."""
        rows = fold((item.partition[0], item.event) for item in batch.items)
        claims = {(tp.topic, tp.partition): claim for tp, claim in self._claims.items()}
        assert moved({p: claim.next for p, claim in claims.items()}, batch.ends)
        try:
            await self._store.apply(rows, claims, batch.ends)
        except Poisoned as error:
            if len(batch.items) > 1:
                for half in batch.halves():
                    await self._apply(half)
                return
            await self._bury(batch.items[0].record, str(error))
            await self._store.apply(Rows(), claims, batch.ends)
        except Fenced:
            metrics.FENCED.inc()
            raise
        for (topic, partition), end in batch.ends.items():
            tp = TopicPartition(topic, partition)
            self._claims[tp] = Claim(self._claims[tp].epoch, end)

    async def _bury(self, record: Any, reason: str) -> None:
        logs.get().error(
            "dead letter",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=reason,
        )
        await self._letters.send(record, reason)

    async def _show(self) -> None:
        """Now and then: lag for the metrics, offsets for lag tools."""
        now = time.monotonic()
        if now - self._hinted_at < _HINT_S or not self._claims:
            return
        self._hinted_at = now
        lag = dict.fromkeys(TOPICS, 0)
        try:
            offsets = {tp: await self._consumer.position(tp) for tp in self._claims}
            for tp, offset in offsets.items():
                end = self._consumer.highwater(tp) or 0
                if end < (self._claims[tp].next or 0):
                    raise Unavailable(f"{tp} ends at {end}, before what was applied")
                lag[tp.topic] += max(0, end - offset)
            for topic, count in lag.items():
                metrics.LAG.labels(topic).set(count)
            await asyncio.wait_for(self._consumer.commit(offsets), _STOP_S)
        except (KafkaError, TimeoutError) as error:
            logs.get().debug("offsets for lag tools were not written", error=repr(error))


def _observe(fetched: dict[TopicPartition, list[Any]], seconds: float) -> None:
    count, oldest_ms = 0, time.time() * 1000
    for tp, records in fetched.items():
        metrics.RECORDS.labels(tp.topic).inc(len(records))
        count += len(records)
        oldest_ms = min(oldest_ms, records[0].timestamp)
    metrics.BATCH.observe(count)
    metrics.APPLY_SECONDS.observe(seconds)
    metrics.FRESHNESS.observe(max(0.0, time.time() - oldest_ms / 1000))
