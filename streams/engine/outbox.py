"""The only way out of a partition: one transaction at a time, by one static transactional id.

Opening it fences whoever held the id. Invariants: nothing commits unless every record and the
offsets are acknowledged (the client itself commits over failed sends); every exchange has a
deadline; after any error, and after any lost connection, the producer is given up and a new one
opened, so that sequence numbers and epochs start afresh and nothing rests on a guess.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import aiokafka
from aiokafka import TopicPartition, errors
from aiokafka.conn import CloseReason
from aiokafka.producer import sender

from schemas.errors import Fenced, Unavailable
from streams.engine.context import Out
from streams.engine.crash import CrashPoint
from streams.engine.deadline import CLOSE_WITHIN_S, answered, ended, leave, seen
from streams.engine.faults import Refused, raise_translated
from streams.engine.settings import EngineSettings

T = TypeVar("T")

BUILDER_BYTES: Final = 512 * 1024
"""Bytes of one record batch; more records of a partition go out as several."""

REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
MARKERS_WITHIN_S: Final = 0.002
"""How soon to ask again when the markers of the transaction before are still being written."""

_NO_HEADERS: Final[list[tuple[str, bytes]]] = []
_HARMLESS: Final = frozenset({CloseReason.IDLE_DROP, CloseReason.SHUTDOWN})

Where = tuple[str, int]


@dataclass(slots=True)
class Stages:
    """How long the steps of one transaction took, in seconds."""

    send_s: float = 0.0
    commit_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one transaction carries; `offsets` may be empty, `changes` may not."""

    outputs: Mapping[Where, Sequence[Out]]
    changelog: Where
    changes: Mapping[bytes, bytes | None]
    offsets: Mapping[Any, int]


class Outbox:
    """Transactions of one partition of one task, for the group that bears the task's name."""

    def __init__(
        self, transactional_id: str, group: str, settings: EngineSettings, crash: CrashPoint
    ) -> None:
        self._group = group
        self._settings = settings
        self._crash = crash
        # The client's own pause is 20 ms, longer than the markers and the whole next transaction.
        sender.BACKOFF_OVERRIDE = MARKERS_WITHIN_S
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap,
            client_id=transactional_id,
            transactional_id=transactional_id,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            request_timeout_ms=int(settings.broker_within_s * 1000),
            max_batch_size=BUILDER_BYTES,
            max_request_size=REQUEST_BYTES_MAX,
            retry_backoff_ms=50,
        )
        self._watch(self._producer.client)
        self._quieten(self._producer._message_accumulator)  # noqa: SLF001

    async def open(self) -> None:
        """Take over the id, and settle what its former owner left open."""
        await self._asked(self._producer.start(), self._settings.broker_within_s)

    async def settle(
        self, topics: Sequence[str], own: Sequence[Where], at: Mapping[Any, int]
    ) -> None:
        """Write an abort marker wherever this id may ever have written, before it commits anything.

        Taking over makes the coordinator abort an open transaction, but a broker that starts after
        a crash may skip the markers of partitions that have no leader yet. What was left open
        there would be committed by the next commit of the same id. `topics` are outputs, in all
        their partitions; `own` are single partitions; `at` are the group's offsets as they are.
        """

        async def abort_everywhere() -> None:
            producer = self._producer
            await self._begin()
            for topic in topics:
                for partition in await producer.partitions_for(topic):
                    self._add(TopicPartition(topic, partition))
            for topic, partition in own:
                await producer.partitions_for(topic)
                self._add(TopicPartition(topic, partition))
            await producer.send_offsets_to_transaction(dict(at), self._group)
            await producer.abort_transaction()

        await self._asked(abort_everywhere(), self._settings.transaction_within_s)

    async def transact(self, parcel: Parcel) -> tuple[int, Stages]:
        """Commit a parcel, all or nothing; returns the changelog's next offset.

        1. begin; 2. hand over every batch; 3. await every acknowledgement; 4. add the offsets;
        5. commit. Raises Refused, Fenced, Corrupt, or Unavailable (then the outcome may be
        unknown); after any, the outbox is good for `close` alone.
        """
        if self._lost.done():
            raise Unavailable("the connection to the broker was lost")
        within_s = self._settings.transaction_within_s
        try:
            return await self._asked(self._transact(parcel), within_s)
        except BaseException as error:
            if not isinstance(error, Fenced) and not self._lost.done():
                # So that no reader waits until the next owner has settled it.
                await ended(self._abort(), CLOSE_WITHIN_S)
            raise

    async def close(self) -> None:
        """Give the producer up; leaves an open transaction to the next owner."""
        producer = self._producer
        if not self._lost.done() and await ended(producer.stop(), CLOSE_WITHIN_S):
            return
        # A stop waits for batches that can't be delivered any more: take the parts down by hand.
        producer._closed = True  # noqa: SLF001
        producer._message_accumulator.fail_all(errors.ProducerClosed())  # noqa: SLF001
        sender = producer._sender.sender_task  # noqa: SLF001
        if sender is not None:
            leave(sender)
        await ended(producer.client.close(), CLOSE_WITHIN_S)

    async def _transact(self, parcel: Parcel) -> tuple[int, Stages]:
        producer, began, stages = self._producer, time.perf_counter(), Stages()
        now_ms = int(time.time() * 1000)
        builders = {where: self._builders(outs, now_ms) for where, outs in parcel.outputs.items()}
        entries = ((key, value, ()) for key, value in parcel.changes.items())
        builders[parcel.changelog] = self._builders(entries, now_ms)
        await self._begin()
        self._crash.at("after_begin")
        acknowledged = await self._send(builders)
        stages.send_s = time.perf_counter() - began
        self._crash.at("after_send")
        if parcel.offsets:
            await producer.send_offsets_to_transaction(dict(parcel.offsets), self._group)
        self._crash.at("after_offsets")
        await producer.commit_transaction()
        stages.commit_s = time.perf_counter() - began - stages.send_s
        last = acknowledged[parcel.changelog][-1]
        return last.offset + builders[parcel.changelog][-1].record_count(), stages

    def _builders(self, outs: Iterable[Out], now_ms: int) -> list[Any]:
        create = self._producer.create_batch
        builder = create()
        builders = [builder]
        append = builder.append
        try:
            for key, value, given in outs:
                headers = list(given) if given else _NO_HEADERS
                if append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
                    builder = create()
                    builders.append(builder)
                    append = builder.append
                    taken = append(timestamp=now_ms, key=key, value=value, headers=headers)
                    assert taken is not None, "an empty batch takes any record"
        except (TypeError, ValueError, UnicodeError) as error:
            raise Refused(f"not bytes: {error}") from error
        return builders

    async def _send(self, builders: Mapping[Where, list[Any]]) -> dict[Where, list[Any]]:
        """Hand over all batches, then await them all; the first failure is raised at the end."""
        producer = self._producer
        waiting: list[tuple[Where, Any]] = []
        for turn in range(max(len(each) for each in builders.values())):
            for (topic, partition), each in builders.items():
                if turn < len(each):
                    if partition not in await producer.partitions_for(topic):
                        raise Refused(f"{topic} has no partition {partition}")
                    future = await producer.send_batch(each[turn], topic, partition=partition)
                    future.add_done_callback(seen)
                    waiting.append(((topic, partition), future))
                    self._crash.at("in_send")
        results = await asyncio.gather(*(each for _, each in waiting), return_exceptions=True)
        acknowledged: dict[Where, list[Any]] = {where: [] for where in builders}
        for (where, _), result in zip(waiting, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            acknowledged[where].append(result)
        return acknowledged

    async def _asked(self, exchange: Coroutine[Any, Any, T], within_s: float) -> T:
        """Return the answer; Unavailable at once when a connection is lost meanwhile."""
        try:
            answer = await answered(exchange, within_s, unless=self._lost)
        except BaseException as error:  # noqa: BLE001  only given another name
            raise_translated(error)
        if self._lost.done():
            raise Unavailable("the connection to the broker was lost")
        return answer

    async def _begin(self) -> None:
        await self._producer.begin_transaction()
        transaction = self._producer._txn_manager  # noqa: SLF001
        transaction.wait_for_transaction_end().add_done_callback(seen)

    async def _abort(self) -> None:
        await self._producer.abort_transaction()

    def _add(self, tp: TopicPartition) -> None:
        self._producer._txn_manager.maybe_add_partition_to_txn(tp)  # noqa: SLF001

    def _watch(self, client: Any) -> None:
        """Notice the loss of any connection: over one, the client retries in silence."""
        report = client._on_connection_closed  # noqa: SLF001

        def closed(connection: Any, reason: CloseReason) -> None:
            if reason not in _HARMLESS and not self._lost.done():
                self._lost.set_result(None)
            report(connection, reason)

        client._on_connection_closed = closed  # noqa: SLF001

    @staticmethod
    def _quieten(accumulator: Any) -> None:
        """Look at the failures of batches given up, which nobody awaits."""
        append = accumulator._append_batch  # noqa: SLF001

        def append_seen(builder: Any, tp: TopicPartition) -> Any:
            batch = append(builder, tp)
            batch.future.add_done_callback(seen)
            batch._drain_waiter.add_done_callback(seen)  # noqa: SLF001
            return batch

        accumulator._append_batch = append_seen  # noqa: SLF001
