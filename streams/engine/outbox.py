"""The only way out of a partition: one transaction at a time, by one static transactional id.

Opening it fences whoever held the id and settles what he left open. Invariants: nothing commits
unless every record and the offsets are acknowledged (the client itself commits over failed
sends); every exchange has a deadline; after any error the producer is given up and a new one
opened, so sequence numbers and epochs start afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import aiokafka
from aiokafka import errors

from schemas.errors import Corrupt, Fenced, HeadraceError, Unavailable
from streams.engine.context import Out
from streams.engine.crash import CrashPoint
from streams.engine.settings import EngineSettings

BUILDER_BYTES: Final = 512 * 1024
"""Bytes of one record batch; more records of a partition go out as several."""

REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
ABORT_WITHIN_S: Final = 1.0

_FENCED: Final = (errors.ProducerFenced, errors.InvalidProducerEpoch, errors.InvalidTxnState)
_REFUSED: Final = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidTimestampError,
)
_CONFIGURED: Final = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
    errors.InvalidTopicError,
    errors.InvalidTransactionTimeout,
)

_NO_HEADERS: Final[list[tuple[str, bytes]]] = []

Where = tuple[str, int]


class Refused(HeadraceError):
    """The broker will never take one of these records; nothing of the transaction stands."""


@dataclass(slots=True)
class Stages:
    """How long the steps of one transaction took, in seconds."""

    send_s: float = 0.0
    commit_s: float = 0.0


class Outbox:
    """Transactions of one partition of one task."""

    def __init__(self, producer: Any, settings: EngineSettings, crash: CrashPoint) -> None:
        self._producer = producer
        self._settings = settings
        self._crash = crash

    @classmethod
    async def open(
        cls,
        transactional_id: str,
        topics: Sequence[str],
        settings: EngineSettings,
        crash: CrashPoint,
    ) -> Outbox:
        """Take over the id; raises Unavailable when the broker does not answer in time."""
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap,
            client_id=transactional_id,
            transactional_id=transactional_id,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            request_timeout_ms=int(settings.broker_within_s * 1000),
            max_batch_size=BUILDER_BYTES,
            max_request_size=REQUEST_BYTES_MAX,
            retry_backoff_ms=50,
        )
        outbox = cls(producer, settings, crash)
        try:
            async with asyncio.timeout(settings.broker_within_s):
                await producer.start()
                for topic in topics:
                    await producer.partitions_for(topic)
        except BaseException as error:  # noqa: BLE001  cancelled or failed, the client is closed
            await outbox.close()
            raise_translated(error)
        return outbox

    async def transact(
        self,
        outputs: Mapping[Where, Sequence[Out]],
        changes: tuple[Where, Mapping[bytes, bytes | None]],
        group: str,
        offsets: Mapping[Any, int],
    ) -> tuple[int, Stages]:
        """Commit outputs, changelog and offsets, all or nothing; returns the changelog's next
        offset.

        1. begin; 2. hand over every batch; 3. await every acknowledgement; 4. add the offsets; 5.
        commit. Raises Refused, Fenced, Unavailable (the outcome of 5 may be unknown then) or
        Corrupt; after any the outbox is good for `close` alone.
        """
        producer, began = self._producer, time.perf_counter()
        stages = Stages()
        changelog, entries = changes
        now_ms = int(time.time() * 1000)
        builders = {where: self._builders(outs, now_ms) for where, outs in outputs.items()}
        builders[changelog] = self._builders(((k, v, ()) for k, v in entries.items()), now_ms)
        try:
            async with asyncio.timeout(self._settings.transaction_within_s):
                await producer.begin_transaction()
                self._crash.at("after_begin")
                acknowledged = await self._send(builders)
                stages.send_s = time.perf_counter() - began
                self._crash.at("after_send")
                if offsets:
                    await producer.send_offsets_to_transaction(dict(offsets), group)
                self._crash.at("after_offsets")
                await producer.commit_transaction()
                stages.commit_s = time.perf_counter() - began - stages.send_s
        except BaseException as error:  # noqa: BLE001  cancelled or failed, nothing may stand
            await self._abort(error)
            raise_translated(error)
        last = acknowledged[changelog][-1]
        return last.offset + builders[changelog][-1].record_count(), stages

    async def close(self) -> None:
        """Give the producer up; never waits long, and leaves an open transaction to the next
        owner.
        """
        producer = self._producer
        with contextlib.suppress(TimeoutError, errors.KafkaError):
            async with asyncio.timeout(ABORT_WITHIN_S):
                await producer.stop()
                return
        # A stop that hangs on undeliverable batches: take the parts down by hand.
        producer._message_accumulator.fail_all(errors.ProducerClosed())  # noqa: SLF001
        sender = producer._sender.sender_task  # noqa: SLF001
        if sender is not None:
            sender.cancel()
        with contextlib.suppress(TimeoutError, errors.KafkaError):
            async with asyncio.timeout(ABORT_WITHIN_S):
                await producer.client.close()
        if sender is not None:
            await asyncio.wait([sender], timeout=ABORT_WITHIN_S)

    def _builders(self, outs: Iterable[Out], now_ms: int) -> list[Any]:
        create = self._producer.create_batch
        builder = create()
        builders = [builder]
        append = builder.append
        for key, value, given in outs:
            headers = list(given) if given else _NO_HEADERS
            if append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
                builder = create()
                builders.append(builder)
                append = builder.append
                taken = append(timestamp=now_ms, key=key, value=value, headers=headers)
                assert taken is not None, "an empty batch takes any record"
        return builders

    async def _send(self, builders: Mapping[Where, list[Any]]) -> dict[Where, list[Any]]:
        """Hand over all batches, then await them all; the first failure is raised when all have
        ended.
        """
        producer = self._producer
        waiting: list[tuple[Where, Any]] = []
        for turn in range(max(len(each) for each in builders.values())):
            for (topic, partition), each in builders.items():
                if turn < len(each):
                    future = await producer.send_batch(each[turn], topic, partition=partition)
                    future.add_done_callback(_seen)
                    waiting.append(((topic, partition), future))
                    self._crash.at("in_send")
        results = await asyncio.gather(*(each for _, each in waiting), return_exceptions=True)
        acknowledged: dict[Where, list[Any]] = {where: [] for where in builders}
        for (where, _), result in zip(waiting, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            acknowledged[where].append(result)
        return acknowledged

    async def _abort(self, error: BaseException) -> None:
        """Take the transaction back where that still can be done, so that no reader waits."""
        if isinstance(error, _FENCED):
            return
        with contextlib.suppress(TimeoutError, errors.KafkaError, AssertionError):
            async with asyncio.timeout(ABORT_WITHIN_S):
                await self._producer.abort_transaction()


def raise_translated(error: BaseException) -> NoReturn:
    """Raise the client's error as one of ours."""
    ours = translated(error)
    if ours is error:
        raise error
    raise ours from error


def translated(error: BaseException) -> BaseException:
    """Return the client's error as one of ours, by who must act."""
    match error:
        case HeadraceError():
            return error
        case TimeoutError():
            return Unavailable("the broker did not answer in time")
        case errors.KafkaError():
            text = f"{type(error).__name__}: {error}"
            if isinstance(error, _FENCED):
                return Fenced(text)
            if isinstance(error, _REFUSED):
                return Refused(text)
            if isinstance(error, _CONFIGURED):
                return Corrupt(text)
            return Unavailable(text)
        case OSError():
            return Unavailable(str(error))
        case _:
            return error


def _seen(future: Any) -> None:
    """Look at a failure that nobody awaits any more, so that it is not reported as overlooked."""
    if not future.cancelled():
        future.exception()
