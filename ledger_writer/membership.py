"""The writer's place in the consumer group: which partitions are its own to work on.

The group says who should work on a partition; the fence alone says who may. So callbacks only
start and stop writers, and nothing rests on their being called in time. The group's consumer never
fetches: it keeps the membership and commits offsets, as a hint for tools that show lag.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition, errors

from ledger_writer.clients import running, translated
from ledger_writer.event import COMMANDS
from schemas import logs
from schemas.errors import Corrupt, Unavailable
from schemas.metrics import READY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ledger_writer.partition import Partition

GROUP: Final = "ledger_writer"
POLL_MS: Final = 500
HINT_EVERY_S: Final = 1.0
HINT_WITHIN_S: Final = 5.0
START_WITHIN_S: Final = 10.0
STOP_WITHIN_S: Final = 3.0
BACKOFF_S: Final = 1.0


class Membership:
    """Runs a writer for each partition that the group assigns to this worker."""

    def __init__(
        self,
        bootstrap: str,
        worker: str,
        partitions: int,
        session_timeout_ms: int,
        writer: Callable[[int], Partition],
    ) -> None:
        self._bootstrap = bootstrap
        self._worker = worker
        self._partitions = partitions
        self._session_timeout_ms = session_timeout_ms
        self._writer = writer
        self._tasks: asyncio.TaskGroup | None = None
        self._joined = False
        self._running: dict[int, _Running] = {}

    async def run(self) -> None:
        """Stay in the group until cancelled; raises what a writer raises."""
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                try:
                    await self._stay()
                except Unavailable as trouble:
                    logs.get().warning("group lost", detail=str(trouble), wait_s=BACKOFF_S)
                finally:
                    READY.set(0)
                    await self.stop(list(self._running))
                await asyncio.sleep(BACKOFF_S)

    async def _stay(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=self._worker,
            group_id=GROUP,
            group_instance_id=self._worker,
            enable_auto_commit=False,
            isolation_level="read_committed",
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=max(100, self._session_timeout_ms // 4),
            rebalance_timeout_ms=max(self._session_timeout_ms, 10_000),
            request_timeout_ms=max(self._session_timeout_ms, 10_000) + 1_000,
            retry_backoff_ms=100,
        )
        with translated("group"):
            async with asyncio.timeout(None) as starting, running(consumer, consumer.stop):
                starting.reschedule(asyncio.get_running_loop().time() + START_WITHIN_S)
                await self._check_topic(consumer)
                starting.reschedule(None)
                consumer.subscribe([COMMANDS], listener=_Listener(self, consumer))
                hinted_at = time.monotonic()
                while True:
                    await consumer.getmany(timeout_ms=POLL_MS)
                    self._restart_fenced()
                    READY.set(self._ready())
                    if time.monotonic() - hinted_at > HINT_EVERY_S:
                        await self._hint(consumer)
                        hinted_at = time.monotonic()

    async def _check_topic(self, consumer: Any) -> None:
        """Homes follow from the partition count: it must be the topic's own."""
        while True:
            cluster = await consumer._client.fetch_all_metadata()  # noqa: SLF001
            found = cluster.partitions_for_topic(COMMANDS)
            if found:
                break
            await asyncio.sleep(0.2)
        if len(found) != self._partitions:
            raise Corrupt(
                f"{COMMANDS} has {len(found)} partitions and HEADRACE_PARTITIONS is"
                f" {self._partitions}: accounts would be at home elsewhere"
            )

    async def assigned(self, numbers: Iterable[int]) -> None:
        """Run exactly these partitions."""
        wanted = set(numbers)
        await self.stop([number for number in self._running if number not in wanted])
        for number in sorted(wanted - self._running.keys()):
            self._start(number)
        self._joined = True
        logs.get().info("assigned", partitions=sorted(wanted))

    async def stop(self, numbers: Iterable[int]) -> None:
        """Stop writers; a commit under way ends by itself, and the next fence finds out how."""
        stopped = [self._running.pop(number) for number in list(numbers)]
        for each in stopped:
            each.task.cancel()
        if stopped:
            await asyncio.wait([each.task for each in stopped], timeout=STOP_WITHIN_S)

    def _start(self, number: int) -> None:
        assert self._tasks is not None, "writers run only while the group is held"
        partition = self._writer(number)
        task = self._tasks.create_task(partition.run(), name=f"partition-{number}")
        self._running[number] = _Running(partition, task)

    def _restart_fenced(self) -> None:
        """Take a partition again that is still ours long after its fence was lost.

        Whoever took it must have had the time to be assigned to it, or be gone.
        """
        now = time.monotonic()
        for number, each in list(self._running.items()):
            if not each.task.done():
                each.alive_at = now
            elif now - each.alive_at > 2 * self._session_timeout_ms / 1000:
                logs.get().warning("taking the fence again", partition=number)
                self._start(number)

    def _ready(self) -> bool:
        return self._joined and all(each.partition.ready for each in self._running.values())

    async def _hint(self, consumer: Any) -> None:
        offsets = {
            TopicPartition(COMMANDS, number): each.partition.next_offset
            for number, each in self._running.items()
            if each.partition.next_offset
        }
        if offsets:
            # A rebalance under way or a slow broker: the next one will do.
            with suppress(errors.KafkaError, TimeoutError, ValueError):
                async with asyncio.timeout(HINT_WITHIN_S):
                    await consumer.commit(offsets)


class _Running:
    """One partition's writer, its task, and when that was last seen alive."""

    __slots__ = ("alive_at", "partition", "task")

    def __init__(self, partition: Partition, task: asyncio.Task[None]) -> None:
        self.partition = partition
        self.task = task
        self.alive_at = time.monotonic()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Carries the group's decisions over."""

    def __init__(self, membership: Membership, consumer: Any) -> None:
        self._membership = membership
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._membership.stop([tp.partition for tp in revoked])

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        taken = list(assigned)
        if taken:
            self._consumer.pause(*taken)
        await self._membership.assigned(tp.partition for tp in taken)
