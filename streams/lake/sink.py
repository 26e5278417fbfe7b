"""The lake's sink: opens what a session needs, and runs it.

One thread, `pool`, opens and changes the tables; the event loop reads. Only one sink owns the
topics; a second one is refused by the tables themselves, whichever comes later.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from pyiceberg.catalog import Catalog

from schemas.errors import Unavailable
from schemas.topics import TOPICS
from streams.lake import metrics
from streams.lake.bronze.commit import Step, open_table
from streams.lake.buffer import Buffer
from streams.lake.catalog import open_catalog
from streams.lake.session import STOP_S, Lane, Session
from streams.lake.settings import Settings
from streams.sink import ended

GROUP: Final = "lake"
_FETCH_BYTES_MIN: Final = 256 * 1024
_FETCH_WAIT_MS: Final = 500
_REQUEST_MS: Final = 10_000
_RETRY_MS: Final = 250


class Sink:
    """The lake's sink. `pool` has exactly one thread: it alone touches the tables."""

    def __init__(self, settings: Settings, pool: ThreadPoolExecutor, step: Step) -> None:
        self._settings = settings
        self._pool = pool
        self._step = step
        self._catalog: Catalog | None = None

    async def session(self, stop: asyncio.Event) -> None:
        """Run until `stop`; raises Fenced or Unavailable when another session should take over."""
        metrics.SESSIONS.inc()
        try:
            lanes = await self._open(await partitions_of(self._settings.kafka))
            reader = AIOKafkaConsumer(
                bootstrap_servers=self._settings.kafka,
                group_id=GROUP,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                fetch_min_bytes=_FETCH_BYTES_MIN,
                fetch_max_wait_ms=int(min(_FETCH_WAIT_MS, self._settings.commit_interval_s * 500)),
                request_timeout_ms=_REQUEST_MS,
                retry_backoff_ms=_RETRY_MS,
                client_id=self._settings.worker,
            )
            try:
                await reader.start()
                await Session(self._settings, self._pool, reader, lanes).run(stop)
            finally:
                await ended(reader.stop(), STOP_S)
        except KafkaError as error:
            raise Unavailable(f"Kafka: {error!r}") from error

    async def _open(self, partitions: dict[str, list[int]]) -> dict[str, Lane]:
        def work() -> dict[str, Lane]:
            self._catalog = self._catalog or open_catalog(
                self._settings.catalog_dsn, self._settings.warehouse
            )
            tables = {topic: open_table(self._catalog, topic, self._step) for topic in partitions}
            return {
                topic: Lane(table, Buffer(topic, table.offsets), partitions[topic])
                for topic, table in tables.items()
            }

        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


async def partitions_of(kafka: str) -> dict[str, list[int]]:
    """Return the partitions of every topic of the topic table; Unavailable while one is missing."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka, request_timeout_ms=_REQUEST_MS)
    try:
        await admin.start()
        found = {
            topic["topic"]: sorted(part["partition"] for part in topic["partitions"])
            for topic in await admin.describe_topics(list(TOPICS))
            if not topic["error_code"]
        }
    finally:
        await admin.close()
    missing = sorted(set(TOPICS) - {topic for topic, parts in found.items() if parts})
    if missing:
        raise Unavailable(f"topics are missing: {', '.join(missing)}")
    return found
