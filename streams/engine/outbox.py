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

from schemas.errors import Fenced, Unavailable
from streams.engine.context import Out
from streams.engine.crash import CrashPoint
from streams.engine.deadline import CLOSE_WITHIN_S, answered, ended, hang_up, leave
from streams.engine.faults import Refused, raise_translated
from streams.engine.settings import EngineSettings
from streams.engine.transaction import Transaction, Where
from streams.engine.unsent import BATCH_BYTES, pack

T = TypeVar("T")

REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024

_HARMLESS: Final = frozenset({CloseReason.IDLE_DROP, CloseReason.SHUTDOWN})


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
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap,
            client_id=transactional_id,
            transactional_id=transactional_id,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            request_timeout_ms=settings.request_timeout_ms,
            max_batch_size=BATCH_BYTES,
            max_request_size=REQUEST_BYTES_MAX,
            retry_backoff_ms=50,
        )
        self._transaction = Transaction(self._producer, transactional_id, group)
        self._watch(self._producer.client)

    async def open(self) -> None:
        """Take over the id, and settle what its former owner left open."""
        try:
            await self._asked(self._producer.start(), self._settings.broker_within_s)
        except AssertionError as error:
            # The client's own: a broker that was away has not heard of its cluster, so of itself.
            raise Unavailable("the broker is not part of its cluster yet") from error

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
            await self._begin()
            for where in await self._everywhere(topics, own):
                self._add(TopicPartition(*where))
            await self._producer.send_offsets_to_transaction(dict(at), self._group)
            await self._producer.abort_transaction()

        await self._asked(abort_everywhere(), self._settings.transaction_within_s)

    async def complete(self, topics: Sequence[str], own: Sequence[Where]) -> None:
        """Write a commit marker wherever this id may ever have written, and nothing else.

        For a transaction that was decided, of which state and group were not both told: a broker
        that stops, or starts after a crash, may skip markers (see `settle`). Whoever was told has
        shown that it was committed, and nothing of a later one can be open, since it would have
        begun after all were told.
        """

        async def commit_everywhere() -> None:
            await self._begin()
            where = await self._everywhere(topics, own)
            await self._transaction.announce(where, offsets=True)
            await self._transaction.commit()

        await self._asked(commit_everywhere(), self._settings.transaction_within_s)

    async def transact(self, parcel: Parcel) -> tuple[int, Stages]:
        """Commit a parcel, all or nothing; returns the changelog's next offset.

        1. begin; 2. announce what is touched; 3. send the offsets and every batch; 4. await every
        acknowledgement; 5. commit. Raises Refused, Fenced, Corrupt, or Unavailable (then the
        outcome may be unknown); after any, the outbox is good for `close` alone.
        """
        if self._lost.done():
            raise Unavailable("the connection to the broker was lost")
        within_s = self._settings.transaction_within_s
        try:
            return await self._asked(self._transact(parcel), within_s)
        except BaseException as error:
            ending = self._transaction.ending
            if not (isinstance(error, Fenced) or ending or self._lost.done()):
                # So that no reader waits until the next owner has settled it.
                await ended(self._abort(), CLOSE_WITHIN_S)
            raise

    async def close(self) -> None:
        """Give the producer up; leaves an open transaction to the next owner."""
        producer = self._producer
        if self._lost.done() or not await ended(producer.stop(), CLOSE_WITHIN_S):
            # It waits for batches that can't be delivered any more: take the parts down by hand.
            producer._closed = True  # noqa: SLF001
            producer._message_accumulator.fail_all(errors.ProducerClosed())  # noqa: SLF001
            sender = producer._sender.sender_task  # noqa: SLF001
            if sender is not None:
                leave(sender)
            await ended(producer.client.close(), CLOSE_WITHIN_S)
        hang_up(producer.client)

    async def _transact(self, parcel: Parcel) -> tuple[int, Stages]:
        began, stages, transaction = time.perf_counter(), Stages(), self._transaction
        now_ms = int(time.time() * 1000)
        batches = {where: pack(outs, now_ms) for where, outs in parcel.outputs.items()}
        entries = ((key, value, ()) for key, value in parcel.changes.items())
        batches[parcel.changelog] = pack(entries, now_ms)
        await self._know(batches)
        await self._begin()
        await transaction.announce(batches, offsets=bool(parcel.offsets))
        self._crash.at("after_begin")
        last = await transaction.carry(batches, parcel.offsets, self._crash.at)
        stages.send_s = time.perf_counter() - began
        self._crash.at("after_send")
        await transaction.commit()
        stages.commit_s = time.perf_counter() - began - stages.send_s
        return last[parcel.changelog] + batches[parcel.changelog][-1].records, stages

    async def _everywhere(self, topics: Sequence[str], own: Sequence[Where]) -> list[Where]:
        """Return all partitions of some topics and these, whose leaders the client knows then."""
        where = list(own)
        for topic, _ in own:
            await self._producer.partitions_for(topic)
        for topic in topics:
            where += [(topic, each) for each in await self._producer.partitions_for(topic)]
        return where

    async def _know(self, where: Iterable[Where]) -> None:
        """See that the client knows who leads these partitions."""
        for topic, partition in where:
            if partition not in await self._producer.partitions_for(topic):
                raise Refused(f"{topic} has no partition {partition}")

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
        self._transaction.begin()

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
