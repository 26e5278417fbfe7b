"""The requests of a producer's transaction, with as few waits for the broker as are safe.

First all that will be touched is announced, then offsets and records go, and when everything is
acknowledged, the end. Invariants: nothing is sent before the announcement is answered, because
until the markers of the transaction before are written a broker adds what it gets to that one; a
node gets one request at a time, in order, because a broker that checks two of them at once takes
one for a repetition and refuses it; what is sent again, after an error that passes, is sent as it
was; nothing is under way when an error is raised, unless a connection was lost. Nothing here has a
deadline: who calls gives it one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from aiokafka import TopicPartition, errors
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.producer.transaction_manager import TransactionResult, TransactionState
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    TxnOffsetCommitRequest,
)

from streams.engine.deadline import seen
from streams.engine.unsent import Unsent

MARKERS_WITHIN_S: Final = 0.002
"""How soon to ask again when the markers of the transaction before are still being written."""

AGAIN_AFTER_S: Final = 0.05
"""How soon to ask again after any other passing error."""

ALL: Final = -1
"""Acknowledged by every replica in sync."""

Where = tuple[str, int]
Batches = Mapping[Where, Sequence[Unsent]]
"""The record batches of each partition, in order."""


class Transaction:
    """The transactions of one producer, one at a time. Raises the client's errors; after any, the
    transaction is good for an abort alone.
    """

    def __init__(self, producer: Any, transactional_id: str, group: str) -> None:
        self._id = transactional_id
        self._group = group
        self._client = producer.client
        self._manager = producer._txn_manager  # noqa: SLF001
        self._sender = producer._sender  # noqa: SLF001
        self._timeout_ms = producer._request_timeout_ms  # noqa: SLF001
        self.ending = False

    def begin(self) -> None:
        """Begin, at the client alone."""
        self.ending = False
        self._manager.begin_transaction()
        self._manager.wait_for_transaction_end().add_done_callback(seen)

    async def announce(self, where: Collection[Where], *, offsets: bool) -> None:
        """Name the partitions to the coordinator, and the group if it gets `offsets`."""
        # So that an abort by the client knows that there may be something to abort.
        self._manager.txn_partitions.update(TopicPartition(*each) for each in where)
        requests: list[Any] = [AddPartitionsToTxnRequest(*self._who(), _by_topic(where))]
        if offsets:
            requests.append(AddOffsetsToTxnRequest(*self._who(), self._group))
        await self._ask(requests)

    async def carry(
        self, batches: Batches, offsets: Mapping[Any, int], at: Callable[[str], None]
    ) -> dict[Where, int]:
        """Send offsets and records; returns the offset of each partition's last batch when
        everything is acknowledged. `at` is told what has happened.
        """
        last: dict[Where, int] = {}
        for turn in range(max(len(each) for each in batches.values())):
            waiting = {
                where: self._built(where, each[turn])
                for where, each in batches.items()
                if turn < len(each)
            }
            last |= await self._send(waiting, offsets if turn == 0 else {}, at)
        return last

    async def commit(self) -> None:
        """Make it true; an error leaves open whether it is."""
        self.ending = True
        end = EndTxnRequest(*self._who(), TransactionResult.COMMIT)
        await self._ask([end])
        self._manager._transition_to(TransactionState.COMMITTING_TRANSACTION)  # noqa: SLF001
        self._manager.complete_transaction()

    async def _ask(self, requests: Sequence[Any]) -> None:
        """Have the transaction's coordinator do these things, in this order."""
        while True:
            node = await self._find(CoordinationType.TRANSACTION, self._id)
            posted = [await self._post(node, each) for each in requests]
            error = _first_error([code for each in posted for code in _codes(await each)])
            if error is None:
                return
            if error is errors.ConcurrentTransactions:
                await asyncio.sleep(MARKERS_WITHIN_S)
            elif _passes(error):
                await self._pause()
            else:
                raise error

    async def _send(
        self, waiting: dict[Where, Any], offsets: Mapping[Any, int], at: Callable[[str], None]
    ) -> dict[Where, int]:
        """Send these batches, one a partition, behind the offsets; returns the offsets they got."""
        got: dict[Where, int] = {}
        while waiting or offsets:
            added = await self._post_offsets(offsets) if offsets else None
            nodes = {self._leader(where) for where in waiting}
            posted = [await self._post(node, self._produce(node, waiting)) for node in nodes]
            for _ in waiting:
                at("in_send")
            codes = _codes(await added) if added is not None else []
            said = [each for answer in posted for each in _of_partitions((await answer).topics)]
            error = _first_error([*codes, *(code for _, code, *_ in said)])
            if error is not None and not _passes(error):
                raise error
            if added is not None and not any(codes):
                offsets = {}
                at("after_offsets")
            for where, code, offset, *_ in said:
                if code == errors.NoError.errno:
                    got[where] = offset
                    del waiting[where]
            if error is not None:
                await self._pause()
        return got

    async def _post_offsets(self, offsets: Mapping[Any, int]) -> asyncio.Future[Any]:
        node = await self._find(CoordinationType.GROUP, self._group)
        topics = _by_topic((tp.topic, tp.partition, at, "") for tp, at in offsets.items())
        transactional_id, *producer = self._who()
        request = TxnOffsetCommitRequest(transactional_id, self._group, *producer, topics)
        return await self._post(node, request)

    async def _pause(self) -> None:
        """Give a passing error time to pass, and look anew for who leads and coordinates."""
        for kind in (CoordinationType.TRANSACTION, CoordinationType.GROUP):
            self._sender._coordinator_dead(kind)  # noqa: SLF001
        await asyncio.sleep(AGAIN_AFTER_S)
        await self._client.force_metadata_update()

    async def _find(self, kind: Any, key: str) -> int:
        return int(await self._sender._find_coordinator(kind, key))  # noqa: SLF001

    def _built(self, where: Where, batch: Unsent) -> bytearray:
        """Give a batch its number and return its bytes."""
        tp, manager = TopicPartition(*where), self._manager
        number = manager.sequence_number(tp)
        manager.increment_sequence_number(tp, batch.records)
        return batch.build(manager.producer_id, manager.producer_epoch, number)

    def _produce(self, node: int, waiting: Mapping[Where, Any]) -> ProduceRequest:
        theirs = ((*at, data) for at, data in waiting.items() if self._leader(at) == node)
        return ProduceRequest(self._id, ALL, self._timeout_ms, _by_topic(theirs))

    def _leader(self, where: Where) -> int:
        node = self._client.cluster.leader_for_partition(TopicPartition(*where))
        if node is None or node == -1:
            raise errors.LeaderNotAvailableError(f"{where} has no leader")
        return int(node)

    def _who(self) -> tuple[str, int, int]:
        return self._id, self._manager.producer_id, self._manager.producer_epoch

    async def _post(self, node: int, request: Any) -> asyncio.Future[Any]:
        """Put a request on its way; returns the answer to come."""
        group = ConnectionGroup.COORDINATION
        connection = await self._client._get_conn(node, group=group)  # noqa: SLF001
        if connection is None:
            raise errors.NodeNotReadyError(f"node {node} cannot be reached")
        connection.send(request).close()  # the client's wait for the answer: ours has a deadline
        answer: asyncio.Future[Any] = connection._requests[-1][2]  # noqa: SLF001
        answer.add_done_callback(seen)
        return answer


def _by_topic(entries: Iterable[Sequence[Any]]) -> list[tuple[str, list[Any]]]:
    """Group (topic, partition, ...) as requests want it."""
    topics: dict[str, list[Any]] = defaultdict(list)
    for topic, *rest in entries:
        topics[topic].append(tuple(rest) if len(rest) > 1 else rest[0])
    return list(topics.items())


def _of_partitions(topics: Any) -> Iterator[tuple[Any, ...]]:
    """Walk what an answer says of each partition, as (where, error code, ...)."""
    for topic, partitions in topics:
        for partition, *said in partitions:
            yield ((topic, partition), *said)


def _codes(answer: Any) -> list[int]:
    """Return a coordinator's error codes, of the whole or of each partition."""
    if hasattr(answer, "error_code"):
        return [answer.error_code]
    return [code for _, code in _of_partitions(answer.errors)]


def _first_error(codes: Iterable[int]) -> Any:
    """Return the error that decides what to do, or None: those that do not pass come first."""
    found = {errors.for_code(code) for code in codes} - {errors.NoError}
    return min(found, key=lambda each: (_passes(each), each.__name__), default=None)


def _passes(error: Any) -> bool:
    return bool(error.retriable) or error is errors.ConcurrentTransactions
