"""Reads this gateway's partition of gateway.replies: committed records only, from the end.

The position is established before the first request that waits is taken, and kept over reconnects,
so that no reply to a request of ours is passed over. Replies to other gateways that share the
partition are the caller's to ignore. A reply that does not decode is counted and passed over:
whoever waits for it times out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from gateways import metrics
from gateways.kafka.link import CLOSE_WITHIN_S, CONNECT_WITHIN_S, RETRY_EVERY_S
from gateways.kafka.reply import TOPIC, Reply, decode
from schemas import logs
from schemas.errors import Poisoned

POLL_MS: Final = 500
REPLIES_MAX: Final = 5_000

_FAILURES: Final = (KafkaError, OSError, TimeoutError)


class ReplyReader:
    """Hands each reply to `on_reply`. `generation` changes when the cluster was found anew."""

    def __init__(
        self,
        bootstrap: str,
        client_id: str,
        partition: int,
        generation: Callable[[], int],
        on_reply: Callable[[Reply], None],
    ) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._partition = TopicPartition(TOPIC, partition)
        self._generation = generation
        self._on_reply = on_reply
        self._log = logs.get()
        self._next_offset: int | None = None
        self._consumer: Any = None

    @property
    def positioned(self) -> bool:
        """Tell whether every later reply will be read."""
        return self._next_offset is not None

    async def run(self) -> None:
        """Read for ever; ends by cancellation."""
        try:
            while True:
                try:
                    await self._read()
                except _FAILURES as error:
                    self._log.warning("replies are not read", reason=repr(error))
                await self._close()
                await asyncio.sleep(RETRY_EVERY_S)
        finally:
            await self._close()

    async def _read(self) -> None:
        """Read until the cluster is found anew."""
        await asyncio.wait_for(self._connect(), CONNECT_WITHIN_S)
        generation = self._generation()
        while generation == self._generation():
            batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=REPLIES_MAX)
            for records in batches.values():
                for record in records:
                    self._take(record.value)
                self._next_offset = cast("int", records[-1].offset) + 1

    async def _connect(self) -> None:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="latest",
            fetch_max_wait_ms=POLL_MS,
        )
        await self._consumer.start()
        self._consumer.assign([self._partition])
        if self._next_offset is None:
            await self._consumer.seek_to_end(self._partition)
            self._next_offset = await self._consumer.position(self._partition)
        else:
            self._consumer.seek(self._partition, self._next_offset)

    def _take(self, value: bytes) -> None:
        try:
            reply = decode(value)
        except Poisoned as error:
            metrics.REPLIES.labels(result="poisoned").inc()
            self._log.error("a reply does not decode", reason=str(error))
            return
        self._on_reply(reply)

    async def _close(self) -> None:
        """Stop the consumer within a bound.

        One in trouble may fail as it stops, with the cancellation of its own tasks too; it has been
        given up by then and must not take the process along.
        """
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        stopping = asyncio.ensure_future(consumer.stop())
        await asyncio.wait([stopping], timeout=CLOSE_WITHIN_S)
        if not stopping.done():
            stopping.cancel()
        elif not stopping.cancelled() and stopping.exception() is not None:
            self._log.warning("a consumer was left behind", reason=repr(stopping.exception()))
