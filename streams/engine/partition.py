"""One partition of a task, from taking it over to giving it up.

Taking over: fence the former owner -> bring the state to what the changelog committed -> compare
the offsets kept with it to the group's -> read on from there, batch after batch. After any error
the same way in again, so every start is a recovery. Invariant: nothing is handled before the state
is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import Fenced, Unavailable
from streams.engine.context import Context
from streams.engine.crash import CrashPoint
from streams.engine.deadline import answered
from streams.engine.faults import Refused, raise_translated
from streams.engine.inlet import Inlet
from streams.engine.machine import Machine
from streams.engine.metrics import PartitionMetrics
from streams.engine.outbox import Outbox
from streams.engine.owned import Narrowing, Owned
from streams.engine.pace import Pace
from streams.engine.position import Disagreement, Heard, Position, agreed
from streams.engine.readiness import Readiness
from streams.engine.restore import Restored, Source, restore
from streams.engine.settings import EngineSettings
from streams.engine.store import Disk, Store
from streams.engine.task import Task
from streams.engine.transaction import Where

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
FENCED_WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What the partitions of one process share."""

    settings: EngineSettings
    disk: Disk
    pace: Pace
    machine: Machine
    crash: CrashPoint
    readiness: Readiness
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def of(cls, settings: EngineSettings, crash: CrashPoint | None = None) -> Shared:
        """Make what a process with these settings has; `crash` instead of the one they name."""
        return cls(
            settings=settings,
            disk=Disk(settings.state_dir, settings.limits),
            pace=Pace(settings.commit_interval_ms / 1000),
            machine=Machine(),
            crash=crash or CrashPoint.parse(settings.crash_point),
            readiness=Readiness(),
        )


@dataclass(frozen=True, slots=True)
class Group:
    """What the partitions of one task share: the broker's side of it, and who hears of changes."""

    cluster: str
    partitions: int
    consumer: Any
    changed: Callable[[], None]


class Partition:
    """Owns partition `number` of a task while the group says so."""

    def __init__(self, task: Task, number: int, group: Group, shared: Shared) -> None:
        self._task = task
        self._number = number
        self._group = group
        self._shared = shared
        self._tps = [TopicPartition(topic, number) for topic in task.topics]
        changelog = TopicPartition(task.changelog, number)
        self._source = Source(changelog, group.cluster, tuple(self._tps))
        self._stop = asyncio.Event()
        self._owned: Owned | None = None
        self._backoff_s = BACKOFF_FIRST_S
        self._narrowing = Narrowing(shared.settings.batch_max)
        self._metrics = PartitionMetrics.of(task.name, number, task.topics)
        self._log = structlog.get_logger().bind(task=task.name, partition=number)
        self.inlet = Inlet(task.topics, number, group.consumer, shared.settings.batch_max)

    @property
    def running(self) -> bool:
        """True while it handles records."""
        return self._owned is not None

    async def run(self) -> None:
        """Own it until `stop`. Raises Corrupt; everything else it recovers from."""
        while not self._stop.is_set():
            again_after_s = await self._attempt()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), again_after_s)

    async def _attempt(self) -> float:
        """Own it for as long as that goes well; returns how long to wait before the next try."""
        try:
            await self._own()
        except Unavailable as error:
            self._interrupted("unavailable", error)
            self._backoff_s = min(self._backoff_s * 2, BACKOFF_MAX_S)
            return self._backoff_s
        except Refused as error:
            self._interrupted("refused", error)
        except Fenced as error:
            # Whether another member owns it is the group's to say: if so, it will be taken from us
            # before this is over; if not, our transaction had only run out of time.
            self._interrupted("fenced", error)
            return max(FENCED_WAIT_S, self._shared.settings.heartbeat_ms * 2 / 1000)
        return 0.0

    def stop(self) -> None:
        """Have `run` end after the batch that it is in."""
        self._stop.set()
        self.inlet.wake()

    def measure(self) -> None:
        """Set the gauges that change without a batch."""
        for topic, records in self.inlet.lag().items():
            self._metrics.lag[topic].set(records)
        self._metrics.lag_s.set(self.inlet.age_s(time.time()))
        if self._owned is not None:
            self._owned.measure()

    def _interrupted(self, reason: str, error: Exception) -> None:
        self._metrics.aborts[reason].inc()
        self._log.warning("partition_interrupted", reason=reason, detail=str(error))

    async def _own(self) -> None:
        began = time.perf_counter()
        async with contextlib.AsyncExitStack() as closing:
            store = self._shared.disk.open(self._task.name, self._number)
            closing.callback(store.close)
            outbox = Outbox(
                self._task.transactional_id(self._number),
                self._task.name,
                self._shared.settings,
                self._shared.crash,
            )
            closing.push_async_callback(outbox.close)
            await outbox.open()
            self._shared.crash.at("after_fence")
            restored = await self._restore(store)
            self._shared.crash.at("after_restore")
            position = await self._come_to_agree(outbox, store, restored)
            await self._settle(outbox, position)
            owned = self._take(outbox, store, position)
            closing.callback(self._give)
            took = round(time.perf_counter() - began, 3)
            self._log.info("partition_running", seconds=took)
            await self._work(owned)
            self._shared.crash.at("on_stop")

    async def _work(self, owned: Owned) -> None:
        pace, inlet, limits = self._shared.pace, self.inlet, self._narrowing
        last_began = time.monotonic() - pace.interval_s
        while True:
            await inlet.wait(owned.until_due_s())
            if self._stop.is_set():
                return
            now = time.monotonic()
            delay = pace.reserve(now, last_began, self._shared.machine.spare(now))
            if delay > 0:
                await inlet.wait_full(limits.limit, delay)
                if self._stop.is_set():
                    return
            fetched = await inlet.take(limits.limit)
            if fetched or owned.until_due_s() == 0.0:
                last_began = time.monotonic()
                await owned.batch(fetched)

    def _take(self, outbox: Outbox, store: Store, position: Position) -> Owned:
        context = Context(
            self._task,
            self._number,
            self._group.partitions,
            store.get,
            self._shared.settings.cache_entries,
        )
        self._owned = owned = Owned(
            self._task,
            self._number,
            self._group.cluster,
            outbox,
            store,
            context,
            position,
            self._narrowing,
            self._shared.crash,
            self._metrics,
            self._shared.turn,
        )
        self._backoff_s = BACKOFF_FIRST_S
        self.inlet.open(position.offsets)
        self._metrics.running.set(1)
        self._group.changed()
        return owned

    def _give(self) -> None:
        self._owned = None
        self.inlet.close()
        self._metrics.running.set(0)
        self._group.changed()

    async def _restore(self, store: Store) -> Restored:
        def progress(reached: int, end: int) -> None:
            self._metrics.progress.set(reached / end if end else 1.0)

        shared = self._shared
        done = await restore(store, self._source, shared.settings, shared.crash, progress)
        self._metrics.restore_s.set(done.seconds)
        self._metrics.restored.set(done.records)
        self._log.info(
            "state_restored",
            records=done.records,
            rebuilt=done.rebuilt,
            seconds=round(done.seconds, 3),
        )
        return done

    async def _come_to_agree(self, outbox: Outbox, store: Store, restored: Restored) -> Position:
        """Return where to read on, if need be after a transaction was completed of which the broker
        has told only the state or only the group.
        """
        try:
            return await self._agreed_position(store, restored)
        except Disagreement as error:
            self._log.warning("transaction_completed", detail=str(error))
        await outbox.complete(self._task.outputs, self._own_topics())
        await self._settle(outbox, store.position() or Position({}))  # returns once it is told
        return await self._agreed_position(store, await self._restore(store))

    async def _agreed_position(self, store: Store, restored: Restored) -> Position:
        """Return where to read on; Corrupt when state and group disagree on what was applied."""
        firsts, committed = restored.firsts, self._group.consumer.committed

        async def hear() -> dict[str, Heard]:
            return {tp.topic: Heard(firsts[tp], await committed(tp)) for tp in self._tps}

        try:
            heard = await answered(hear(), self._shared.settings.broker_within_s)
        except (KafkaError, OSError) as error:
            raise_translated(error)
        kept = store.position() or Position({})
        return agreed(self._task.name, self._number, kept, heard)

    async def _settle(self, outbox: Outbox, position: Position) -> None:
        at = {tp: position.offsets.get(tp.topic, 0) for tp in self._tps}
        await outbox.settle(self._task.outputs, self._own_topics(), at)

    def _own_topics(self) -> list[Where]:
        """Name what is written in this partition alone."""
        topics = [self._task.changelog, *self._task.dead_letter_topics]
        if self._task.timers:
            topics.append(self._task.timers_topic)
        return [(topic, self._number) for topic in topics]
