"""Delivers a task's topics to its partitions: membership in the group, fetching, and who owns
what now.

A service of the faust app. One consumer per task, in the group that bears the task's name, with
static membership. Fetched records go to the partitions as they arrive, so that no topic holds up
another. Invariant: when a revocation has been answered, nothing of the revoked partitions is
still at work. A member that the group has dropped ends its process: somebody else has its name or
its partitions. One that a broker has forgotten joins anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import aiokafka
import mode
import structlog
from aiokafka import TopicPartition, errors
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from schemas.errors import Corrupt, Fenced, HeadraceError
from streams.engine import lean
from streams.engine.deadline import CLOSE_WITHIN_S, answered, ended, hang_up
from streams.engine.faults import raise_translated
from streams.engine.membership import Membership
from streams.engine.partition import Group, Partition, Shared
from streams.engine.task import Task
from streams.engine.topology import check_topics, cluster_id

POLL_MS: Final = 500
MEASURE_EVERY_S: Final = 1.0
FETCH_WAIT_MS: Final = 250
FETCH_STEP_S: Final = 0.005
"""Records that arrive in a stream are fetched in steps: a fetch costs the broker as much for one
record as for many."""
FETCH_BYTES: Final = 1024 * 1024


class Delivery(mode.Service):  # type: ignore[misc]
    """Runs one task on the partitions that the group gives this worker."""

    def __init__(self, task: Task, shared: Shared, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._task = task
        self._shared = shared
        self._group: Group | None = None
        self._joined = False
        self._consumer: Any = None
        self._membership: Membership | None = None
        self._partitions: dict[int, Partition] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._log = structlog.get_logger().bind(task=task.name)

    # -- the service -------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Join the group; Unavailable or Corrupt when the topics are not as the task needs them."""
        settings = self._shared.settings
        self._consumer = consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap,
            client_id=settings.worker,
            group_id=self._task.name,
            group_instance_id=settings.worker,
            partition_assignment_strategy=(RangePartitionAssignor,),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            session_timeout_ms=settings.group_session_ms,
            heartbeat_interval_ms=settings.heartbeat_ms,
            rebalance_timeout_ms=max(settings.session_timeout_ms, 10_000),
            request_timeout_ms=max(int(settings.broker_within_s * 1000), 11_000),
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
            retry_backoff_ms=100,
        )
        within_s = settings.broker_within_s
        try:
            await answered(consumer.start(), within_s)
            self._membership = Membership(consumer._coordinator)  # noqa: SLF001
            lean.makes(consumer, lean.raw)
            count = await check_topics(consumer, self._task, settings.start_within_s, within_s)
            cluster = await answered(cluster_id(consumer), within_s)
            self._group = Group(cluster, count, consumer, self._changed)
        except (errors.KafkaError, TimeoutError, OSError) as error:
            raise_translated(error)
        consumer.subscribe(list(self._task.topics), listener=_Listener(self))

    async def on_stop(self) -> None:
        """Finish the batches at work, then leave the broker; the membership stays for a restart."""
        await self._end(list(self._partitions))
        if self._consumer is not None:
            await ended(self._consumer.stop(), CLOSE_WITHIN_S)
            hang_up(self._consumer._client)  # noqa: SLF001

    @mode.Service.task  # type: ignore[untyped-decorator]
    async def _pump(self) -> None:
        """Hand what arrives to its partition."""
        last = 0.0
        while not self.should_stop:
            step_s = last + FETCH_STEP_S - time.monotonic()
            if step_s > 0:
                await asyncio.sleep(step_s)
            try:
                fetched = await self._consumer.getmany(timeout_ms=POLL_MS)
            except errors.NoOffsetForPartitionError:
                continue  # a partition just assigned, before its owner has said where to begin
            except errors.OffsetOutOfRangeError as error:
                raise Corrupt(f"task {self._task.name}: retention has passed {error}") from error
            except errors.ConsumerStoppedError:
                return
            except errors.KafkaError as error:
                if not error.retriable:
                    raise
                self._log.warning("fetch_failed", detail=repr(error))
                await self.sleep(0.5)
                continue
            last = time.monotonic()
            for tp, records in fetched.items():
                partition = self._partitions.get(tp.partition)
                if partition is not None:
                    partition.inlet.push(tp.topic, records)

    @mode.Service.task  # type: ignore[untyped-decorator]
    async def _measure(self) -> None:
        while not self.should_stop:
            for partition in self._partitions.values():
                partition.measure()
            await self.sleep(MEASURE_EVERY_S)

    # -- the group ---------------------------------------------------------------------------

    async def revoked(self) -> None:
        """End every partition: the group is about to share them out anew."""
        await self._end(list(self._partitions))
        if not self._joined or self._consumer._coordinator.member_id:  # noqa: SLF001
            return
        assert self._membership is not None, "nothing is revoked before the start"
        if not self._membership.away:
            raise Fenced(
                f"worker {self._shared.settings.worker} is no longer a member of group"
                f" {self._task.name}: its session ran out, or another process has its name"
            )
        self._log.warning("membership_forgotten", detail="the broker was away: joining anew")

    async def assigned(self, tps: Iterable[TopicPartition]) -> None:
        """Take over what the group gives us."""
        if self.should_stop:
            return
        self._joined = True
        topics_by_number: dict[int, set[str]] = defaultdict(set)
        for tp in tps:
            topics_by_number[tp.partition].add(tp.topic)
            # Paused at any position, until its owner knows where to begin.
            self._consumer.pause(tp)
            self._consumer.seek(tp, 0)
        for number, topics in sorted(topics_by_number.items()):
            if topics != set(self._task.topics):
                raise Corrupt(f"partition {number} of {self._task.name} is shared: {topics}")
            assert self._group is not None, "topics are checked before the group is joined"
            if number >= self._group.partitions:
                raise Corrupt(f"task {self._task.name}: its topics were given more partitions")
            partition = Partition(self._task, number, self._group, self._shared)
            self._partitions[number] = partition
            run = asyncio.create_task(partition.run(), name=f"{self._task.name}-{number}")
            run.add_done_callback(self._ended)
            self._runs[number] = run
        self._changed()

    def _changed(self) -> None:
        serving = self._joined and all(each.running for each in self._partitions.values())
        self._shared.readiness.tell(self._task.name, serving=serving)

    def _ended(self, run: asyncio.Task[None]) -> None:
        error = None if run.cancelled() else run.exception()
        if error is not None:
            self._log.error("partition_failed", run=run.get_name(), detail=str(error))
            self.add_future(self.crash(error))

    async def _end(self, numbers: list[int]) -> None:
        """Stop partitions, after the batch at work if that takes not too long."""
        runs = [self._runs[number] for number in numbers]
        for number in numbers:
            self._partitions[number].stop()
        if runs:
            _, late = await asyncio.wait(runs, timeout=self._shared.settings.stop_within_s)
            for run in late:
                run.cancel()
            if late:
                await asyncio.wait(late)
        for number in numbers:
            # A stop and a revocation may end the same ones at the same time.
            self._partitions.pop(number, None)
            self._runs.pop(number, None)


class _Listener(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc]
    """Carries the group's decisions over, and their failures to where they end the process."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        del revoked
        try:
            await self._delivery.revoked()
        except HeadraceError as error:
            await self._delivery.crash(error)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        try:
            await self._delivery.assigned(assigned)
        except HeadraceError as error:
            await self._delivery.crash(error)
