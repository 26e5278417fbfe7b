"""Sends what can never be applied to `<topic>.dlq`: the record's own bytes, and why in its headers.

A letter is acknowledged before the record is passed over, so none is lost; a crash between the two
writes it again, and `dlq.topic`, `dlq.partition`, `dlq.offset` tell that it is the same.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas import topics
from schemas.errors import Unavailable
from streams.views import metrics

TASK: Final = "views"
_REQUEST_MS: Final = 10_000


class DeadLetters:
    """A producer that starts with the first letter."""

    def __init__(self, kafka: str, worker: str) -> None:
        self._kafka = kafka
        self._worker = worker
        self._producer: AIOKafkaProducer | None = None

    async def send(self, record: Any, reason: str) -> None:
        """Write a record off; raises Unavailable when the broker does not take it."""
        headers = [
            *record.headers,
            ("dlq.task", TASK.encode()),
            ("dlq.topic", record.topic.encode()),
            ("dlq.partition", str(record.partition).encode()),
            ("dlq.offset", str(record.offset).encode()),
            ("dlq.reason", reason.encode()),
        ]
        try:
            producer = self._producer or await self._start()
            await producer.send_and_wait(
                topics.dead_letters(record.topic),
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=headers,
            )
        except KafkaError as error:
            raise Unavailable(f"no dead letter was taken: {error!r}") from error
        metrics.DEAD_LETTERS.labels(record.topic).inc()

    async def close(self) -> None:
        """End the producer."""
        if self._producer is not None:
            with suppress(KafkaError):
                await self._producer.stop()

    async def _start(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka,
            client_id=self._worker,
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=_REQUEST_MS,
            max_request_size=topics.MESSAGE_BYTES_MAX,
        )
        await producer.start()
        self._producer = producer
        return producer
