"""The one Kafka producer of a gateway: idempotent, acks=all, replaced when it is broken.

aiokafka's idempotent producer never recovers from a batch that failed for good (its next sequence
number is then refused for ever), and it never learns of brokers that all moved. So any failed
batch, and any batch without an answer for STUCK_S, replaces it; what was on its way has then an
unknown outcome, which is safe because a retry carries the same id. Health is a fact, not a state:
`up` means that the broker answered an acknowledgement or a metadata request within FRESH_S and that
the topics are as they must be.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from gateways import metrics
from gateways.kafka.outbox import Event
from schemas import logs
from schemas.errors import Unavailable
from schemas.topics import MESSAGE_BYTES_MAX

FRESH_S: Final = 2.5
PROBE_EVERY_S: Final = 0.5
PROBE_WITHIN_S: Final = 1.5
STUCK_S: Final = 10.0
CONNECT_WITHIN_S: Final = 5.0
RETRY_EVERY_S: Final = 0.25
REQUEST_MS: Final = 5_000
FIND_WITHIN_S: Final = 1.0
CLOSE_WITHIN_S: Final = 1.0

_FAILURES: Final = (KafkaError, OSError, TimeoutError)


class KafkaLink:
    """The Link port over aiokafka. `run` keeps it connected."""

    def __init__(
        self,
        bootstrap: str,
        client_id: str,
        topics: Sequence[str],
        partitions: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._topics = topics
        self._partitions = partitions
        self._now = now
        self._log = logs.get()
        self._producer: Any = None
        self._answered_at: float | None = None
        self._pending: dict[asyncio.Future[None], float] = {}
        self._retired: Any = None
        self._wake = asyncio.Event()
        self._found = asyncio.Event()
        self._starting: Any = None
        self.generation = 0
        """Counts producers; another number says that the cluster was left and found again."""
        self.trouble: str | None = "not yet connected"
        """Why it is not up, for people."""
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its state is logged here

    def up(self) -> bool:
        """Tell whether the broker has answered within FRESH_S and has the topics."""
        return (
            self.trouble is None
            and self._answered_at is not None
            and self._now() - self._answered_at < FRESH_S
        )

    async def send(self, topic: str, partition: int, events: Sequence[Event]) -> None:
        """Write one batch; return when it is acknowledged. Unavailable: its outcome is unknown."""
        producer = await self._connected()
        builder = producer.create_batch()
        for event in events:
            added = builder.append(
                timestamp=event.at_ms, key=event.key, value=event.value, headers=[*event.headers]
            )
            assert added is not None, "a batch is bounded far below the producer's own bound"
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending[outcome] = self._now()
        try:
            async with asyncio.timeout(STUCK_S):  # a closed client would never find its topic
                delivery = await producer.send_batch(builder, topic, partition=partition)
            delivery.add_done_callback(lambda done: self._settle(outcome, done))
            await outcome
        except _FAILURES as error:
            if producer is self._producer:
                self._break(f"a batch failed: {error!r}")
            raise Unavailable(str(error)) from error
        finally:
            self._pending.pop(outcome, None)
            if outcome.done() and not outcome.cancelled():
                outcome.exception()  # it may have been set before anyone waited for it
        self._answered_at = self._now()

    async def run(self) -> None:
        """Connect, probe, replace, for ever; ends by cancellation and closes the producer."""
        try:
            while True:
                if self._retired is not None:
                    await self._discard()
                if self._producer is None:
                    await self._connect()
                else:
                    await self._probe()
                metrics.BROKER_UP.set(self.up())
                if self._retired is None:
                    await self._pause()
        finally:
            await self._discard()

    async def _pause(self) -> None:
        """Wait for the next probe or attempt, or for a producer that breaks."""
        self._wake.clear()
        seconds = PROBE_EVERY_S if self._producer is not None else RETRY_EVERY_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    async def _connect(self) -> None:
        self._starting = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            enable_idempotence=True,
            request_timeout_ms=REQUEST_MS,
            max_batch_size=MESSAGE_BYTES_MAX,
        )
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await self._starting.start()
                await self._starting.client.set_topics(self._topics)
        except _FAILURES as error:
            self._say(f"cannot connect to {self._bootstrap}: {error!r}")
            await self._discard()
            return
        self._producer, self._starting = self._starting, None
        self.generation += 1
        self._found.set()
        await self._probe()

    async def _connected(self) -> Any:
        """Return the producer; while it is being replaced, wait for the next one, not for long."""
        if self._producer is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._found.wait(), FIND_WITHIN_S)
        if self._producer is None:
            raise Unavailable("there is no connection to the broker")
        return self._producer

    async def _probe(self) -> None:
        """Ask the broker for its topics; also notice a producer that is stuck."""
        oldest = min(self._pending.values(), default=None)
        if oldest is not None and self._now() - oldest > STUCK_S:
            self._break(f"no answer to a batch for {STUCK_S:g} s")
            return
        try:
            cluster = await asyncio.wait_for(
                self._producer.client.fetch_all_metadata(), PROBE_WITHIN_S
            )
        except _FAILURES as error:
            if not self.up():
                self._say(f"no answer from {self._bootstrap}: {error!r}")
            return
        wrong = [
            f"{topic} has {count} partitions, not {self._partitions}"
            for topic in self._topics
            if (count := len(cluster.partitions_for_topic(topic) or ())) != self._partitions
        ]
        self._answered_at = self._now()
        self._say("; ".join(wrong) or None)

    def _settle(self, outcome: asyncio.Future[None], delivery: asyncio.Future[Any]) -> None:
        if delivery.cancelled() or outcome.done():
            if not delivery.cancelled():
                delivery.exception()  # nobody waits for it any more
            return
        error = delivery.exception()
        if error is None:
            outcome.set_result(None)
        else:
            outcome.set_exception(error)

    def _break(self, reason: str) -> None:
        """Use this producer no more; `run` closes it and connects another."""
        self._log.warning("replacing the producer", reason=reason)
        metrics.RECONNECTS.labels(reason=reason.partition(":")[0]).inc()
        self._retired, self._producer = self._producer, None
        self._found.clear()
        self._wake.set()

    async def _discard(self) -> None:
        """Close the producer within a bound, whatever state it and the broker are in."""
        producer = self._retired or self._producer or self._starting
        self._producer = self._starting = self._retired = None
        self._found.clear()
        for outcome in self._pending:
            if not outcome.done():
                outcome.set_exception(TimeoutError("the producer was replaced"))
        if producer is None:
            return
        sender = producer._sender.sender_task  # noqa: SLF001 (it waits for the broker to end)
        if sender is not None:
            # The first cancellation waits for the request on its way, the second ends that wait.
            for _ in range(2):
                sender.cancel()
                await asyncio.wait([sender], timeout=CLOSE_WITHIN_S / 10)
            producer._message_accumulator.fail_all(KafkaError("replaced"))  # noqa: SLF001
        # It may fail with the cancellation of its own tasks, which is not ours.
        stopping = asyncio.ensure_future(producer.stop())
        await asyncio.wait([stopping], timeout=CLOSE_WITHIN_S)
        if not stopping.done():
            stopping.cancel()
        elif not stopping.cancelled() and stopping.exception() is not None:
            self._log.warning("a producer was left behind", reason=repr(stopping.exception()))

    def _say(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            if trouble is None:
                self._log.info("the broker is up", kafka=self._bootstrap)
            else:
                self._log.warning("the broker is not usable", reason=trouble)
        self.trouble = trouble
