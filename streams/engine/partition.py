"""One partition of a task, from taking it over to giving it up.

Taking over: fence the former owner -> bring the state to what the changelog committed -> compare
the offsets kept with it to the group's -> read on from there. Each batch: handle over the overlay
-> transaction -> store. After any error the same way in again, so every start is a recovery.
Invariants: nothing is handled before the state is whole, and the store is written only after the
commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import Corrupt, Fenced, Unavailable
from streams.engine import keys
from streams.engine.batch import Batches
from streams.engine.context import Context, Effects
from streams.engine.crash import CrashPoint
from streams.engine.inlet import Inlet
from streams.engine.metrics import BatchFigures, PartitionMetrics
from streams.engine.outbox import Outbox, Refused, Stages, raise_translated
from streams.engine.pace import Pace
from streams.engine.position import Heard, Position, agreed, encode_position
from streams.engine.restore import Source, restore
from streams.engine.settings import EngineSettings
from streams.engine.store import Disk, Mark, Store
from streams.engine.task import Task
from streams.engine.timers import FIRE_MAX, Fired, fire

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What the partitions of one process share."""

    settings: EngineSettings
    disk: Disk
    pace: Pace
    crash: CrashPoint


@dataclass(frozen=True, slots=True)
class Group:
    """What all partitions of a task have in common at the broker."""

    cluster: str
    partitions: int


@dataclass(slots=True)
class _Open:
    """What exists only while the partition is ours and whole."""

    outbox: Outbox
    store: Store
    context: Context
    batches: Batches
    position: Position
    next_due_us: int | None
    due_from: bytes = keys.DUE

    def until_due_s(self) -> float | None:
        """Seconds until the next timer is due, 0.0 when one is; None when there is none."""
        if self.next_due_us is None:
            return None
        return max(0.0, self.next_due_us / 1e6 - time.time())

    def look_for_due(self, changes: Mapping[bytes, bytes | None], fired: Fired) -> None:
        """Find the next due timer, without a walk over the remains of those that have fired."""
        if fired.entries:
            self.due_from = fired.entries[-1]
        for key, value in changes.items():
            if value is not None and keys.is_timer(key):
                self.due_from = min(self.due_from, keys.due_entry(key, value))
        self.next_due_us = self.store.first_due(self.due_from)


class Partition:
    """Owns partition `number` of a task while the group says so."""

    def __init__(
        self, task: Task, number: int, group: Group, consumer: Any, shared: Shared
    ) -> None:
        self._task = task
        self._number = number
        self._group = group
        self._consumer = consumer
        self._shared = shared
        self._tps = {topic: TopicPartition(topic, number) for topic in task.topics}
        self._source = Source(TopicPartition(task.changelog, number), group.cluster)
        self._stop = asyncio.Event()
        self._metrics = PartitionMetrics.of(task.name, number, task.topics)
        self._refused: set[tuple[str, int]] = set()
        self._limit = shared.settings.batch_max
        self._log = structlog.get_logger().bind(task=task.name, partition=number)
        self._owned: _Open | None = None
        self.inlet = Inlet(task.topics, number, consumer, shared.settings.batch_max)

    async def run(self) -> None:
        """Own it until `stop`. Raises Corrupt; everything else it recovers from."""
        backoff = BACKOFF_FIRST_S
        while not self._stop.is_set():
            reason, again_after = "unavailable", backoff
            try:
                await self._own()
                backoff = BACKOFF_FIRST_S
                continue
            except Unavailable as error:
                detail, backoff = str(error), min(backoff * 2, BACKOFF_MAX_S)
            except Refused as error:
                reason, again_after, detail = "refused", 0.0, str(error)
            except Fenced as error:
                # Whether another member owns it is the group's to say: if so, it will be taken
                # from us before this is over; if not, our transaction had only run out of time.
                reason, again_after = "fenced", self._shared.settings.heartbeat_ms * 2 / 1000
                detail = str(error)
            self._metrics.aborts[reason].inc()
            self._log.warning("partition_interrupted", reason=reason, detail=detail)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), again_after)

    def stop(self) -> None:
        """Have `run` end after the batch that it is in."""
        self._stop.set()
        self.inlet.wake()

    # -- taking over -------------------------------------------------------------------------

    async def _own(self) -> None:
        store: Store | None = None
        outbox: Outbox | None = None
        began = time.perf_counter()
        try:
            store = self._shared.disk.open(self._task.name, self._number)
            outbox = await Outbox.open(
                self._task.transactional_id(self._number),
                (*self._task.outputs, self._task.changelog),
                self._shared.settings,
                self._shared.crash,
            )
            self._shared.crash.at("after_fence")
            await self._restore(store)
            self._shared.crash.at("after_restore")
            position = await self._agreed_position(store)
            self._owned = owned = self._opened(outbox, store, position)
            self.inlet.open(position.offsets)
            self._metrics.running.set(1)
            self._log.info("partition_running", seconds=round(time.perf_counter() - began, 3))
            await self._work(owned)
        finally:
            self._owned = None
            self._metrics.running.set(0)
            self.inlet.close()
            if outbox is not None:
                await outbox.close()
            if store is not None:
                store.close()

    def _opened(self, outbox: Outbox, store: Store, position: Position) -> _Open:
        settings = self._shared.settings
        context = Context(
            self._task, self._number, self._group.partitions, store.get, settings.cache_entries
        )
        due = store.first_due() if self._task.timers else None
        return _Open(outbox, store, context, Batches(self._task, context), position, due)

    async def _restore(self, store: Store) -> None:
        def progress(reached: int, end: int) -> None:
            self._metrics.progress.set(reached / end if end else 1.0)

        shared = self._shared
        done = await restore(store, self._source, shared.settings, shared.crash, progress)
        self._metrics.restore_s.set(done.seconds)
        self._metrics.restored.set(done.records)
        self._metrics.state_bytes.set(store.size_bytes())
        self._metrics.state_entries.set(store.entries())
        self._log.info(
            "state_restored",
            records=done.records,
            rebuilt=done.rebuilt,
            seconds=round(done.seconds, 3),
        )

    async def _agreed_position(self, store: Store) -> Position:
        """Return where to read on; Corrupt when state and group disagree on what was applied."""
        tps = list(self._tps.values())
        try:
            async with asyncio.timeout(self._shared.settings.broker_within_s):
                first = await self._consumer.beginning_offsets(tps)
                heard = {
                    tp.topic: Heard(first[tp], await self._consumer.committed(tp)) for tp in tps
                }
        except (KafkaError, TimeoutError, OSError) as error:
            raise_translated(error)
        kept = store.position() or Position({})
        return agreed(self._task.name, self._number, kept, heard)

    # -- batches -----------------------------------------------------------------------------

    async def _work(self, owned: _Open) -> None:
        pace, inlet = self._shared.pace, self.inlet
        last_began = -self._shared.settings.commit_interval_ms / 1000
        while not self._stop.is_set():
            await inlet.wait(owned.until_due_s())
            delay = pace.delay(time.monotonic(), last_began)
            if delay > 0 and not self._stop.is_set():
                await inlet.wait_full(self._limit, delay)
            if self._stop.is_set():
                break
            fetched = await inlet.take(self._limit)
            if fetched or owned.until_due_s() == 0.0:
                last_began = time.monotonic()
                pace.began(last_began)
                await self._batch(owned, fetched)
        self._shared.crash.at("on_stop")

    async def _batch(self, owned: _Open, fetched: list[Any]) -> None:
        crash, began = self._shared.crash, time.perf_counter()
        outcome = owned.batches.apply(fetched, owned.position, self._refused)
        fired = self._fire(owned)
        effects = owned.context.take()
        effects.changes[keys.POSITION] = encode_position(outcome.position)
        handled = time.perf_counter()
        crash.at("after_handle")
        next_offset, stages = await self._commit(owned, effects, outcome.position, fetched)
        crash.at("after_commit")
        committed = time.perf_counter()
        mark = Mark(self._group.cluster, next_offset, time.time())
        owned.store.write(effects.changes, mark, fired.entries)
        crash.at("after_store")
        owned.context.committed()
        owned.position = outcome.position
        if self._task.timers:
            owned.look_for_due(effects.changes, fired)
        self._limit = min(self._limit * 2, self._shared.settings.batch_max)
        self._refused.clear()
        self._metrics.observe(
            BatchFigures(
                records=Counter(record.topic for record in fetched),
                stages={
                    "handle": handled - began,
                    "send": stages.send_s,
                    "commit": stages.commit_s,
                    "store": time.perf_counter() - committed,
                },
                emitted=effects.emitted,
                changes=len(effects.changes),
                dead=outcome.dead,
                fired=fired.timers,
            )
        )

    async def _commit(
        self, owned: _Open, effects: Effects, after: Position, fetched: list[Any]
    ) -> tuple[int, Stages]:
        before = owned.position.offsets
        offsets = {
            self._tps[topic]: offset
            for topic, offset in after.offsets.items()
            if offset != before.get(topic)
        }
        changes = ((self._task.changelog, self._number), effects.changes)
        try:
            return await owned.outbox.transact(effects.outputs, changes, self._task.name, offsets)
        except Refused as error:
            self._narrow(fetched, error)
            raise

    def _narrow(self, fetched: list[Any], error: Refused) -> None:
        """The broker refuses what this batch causes: come down to the one record that causes it."""
        if len(fetched) > 1:
            self._limit = len(fetched) // 2
            return
        if not fetched or self._refused:
            raise Corrupt(f"task {self._task.name}: the broker refuses a dead letter: {error}")
        self._limit = 1
        self._refused = {(record.topic, record.offset) for record in fetched}

    def _fire(self, owned: _Open) -> Fired:
        if owned.until_due_s() != 0.0:
            return Fired()
        due = owned.store.due(time.time_ns() // 1000, FIRE_MAX, owned.due_from)
        return fire(self._task, owned.context, due)

    def measure(self) -> None:
        """Set the gauges that change without a batch."""
        for topic, records in self.inlet.lag().items():
            self._metrics.lag[topic].set(records)
        self._metrics.lag_s.set(self.inlet.age_s(time.time()))
        if self._owned is not None:
            self._metrics.state_bytes.set(self._owned.store.size_bytes())
            self._metrics.state_entries.set(self._owned.store.entries())
