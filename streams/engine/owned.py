"""A partition that is ours and whole: batch after batch through handler, transaction and store.

Invariants: the store is written only after the commit, and a batch that failed anywhere leaves this
object useless: it is closed and the partition taken over anew, which recovers whatever the failed
batch came to.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiokafka import TopicPartition

from schemas.errors import Corrupt
from streams.engine import keys
from streams.engine.ahead import Ahead
from streams.engine.batch import Batches, DeadLetter, Outcome
from streams.engine.context import Context, Effects
from streams.engine.crash import CrashPoint
from streams.engine.faults import Refused
from streams.engine.generations import Sweep
from streams.engine.metrics import BatchFigures, PartitionMetrics
from streams.engine.outbox import Outbox, Parcel, Stages
from streams.engine.position import Position, encode_position
from streams.engine.store import Mark, Store
from streams.engine.task import Task
from streams.engine.timers import Fired, fire

FIRE_MAX: Final = 1_000
"""Timers that fire in one transaction at most."""

STRETCH_S: Final = 0.0005
"""How much of the processor a handler takes before others' answers are heard, about."""

LOGGED_MAX: Final = 10
"""Dead letters of one batch that are logged one by one."""


@dataclass(slots=True)
class Narrowing:
    """How a batch that the broker refuses is brought down to the one record that causes it.

    It outlives the ownership in which a batch failed.
    """

    batch_max: int
    limit: int = 0
    refused: dict[tuple[str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.limit = self.batch_max

    def failed(self, fetched: list[Any], reason: str) -> bool:
        """A batch was refused; False when there is nothing narrower to try."""
        if len(fetched) > 1:
            self.limit = len(fetched) // 2
            return True
        if not fetched or self.refused:
            return False
        self.limit = 1
        self.refused = {(record.topic, record.offset): reason for record in fetched}
        return True

    def passed(self) -> None:
        """A batch was committed."""
        self.limit = min(self.limit * 2, self.batch_max)
        self.refused = {}


@dataclass(slots=True)
class Owned:
    """What exists only while the partition is ours."""

    task: Task
    number: int
    cluster: str
    outbox: Outbox
    store: Store
    context: Context
    position: Position
    narrowing: Narrowing
    crash: CrashPoint
    metrics: PartitionMetrics
    turn: asyncio.Lock
    batches: Batches = field(init=False)
    sweep: Sweep = field(init=False)
    ahead: Ahead = field(init=False)
    next_due_us: int | None = field(init=False)
    due_from: bytes = keys.DUE

    def __post_init__(self) -> None:
        self.batches = Batches(self.task, self.context)
        self.sweep = Sweep(self.task, self.context, self.store.rows)
        self.ahead = Ahead(self.task, self.context, self.store.read, self.store.reader)
        self.next_due_us = self.store.first_due() if self.task.timers else None

    async def batch(self, fetched: list[Any]) -> None:
        """Handle records, and timers that are due, and make what they cause true.

        Raises what the handler may raise, and Refused, Fenced or Unavailable of the outbox.
        """
        asked = time.perf_counter()
        await self.ahead.look(fetched)
        began = time.perf_counter()
        outcome = await self._handle(fetched)
        fired = self._fire()
        gone = self.sweep.step(self.position.log_time_us, len(fetched))
        effects = self.context.take()
        effects.changes[keys.POSITION] = encode_position(outcome.position)
        self._report(outcome.dead)
        handled = time.perf_counter()
        self.crash.at("after_handle")
        next_offset, stages = await self._commit(effects, gone, outcome.position, fetched)
        self.crash.at("after_commit")
        committed = time.perf_counter()
        mark = Mark(self.cluster, next_offset, time.time())
        self.store.write(effects.changes, mark, fired.entries)
        self.crash.at("after_store")
        self.context.committed()
        self.position = outcome.position
        self.narrowing.passed()
        if self.task.timers:
            self._look_for_due(effects.changes, fired)
        self.metrics.observe(
            BatchFigures(
                records=Counter(record.topic for record in fetched),
                stages={
                    "read": began - asked,
                    "handle": handled - began,
                    "send": stages.send_s,
                    "commit": stages.commit_s,
                    "store": time.perf_counter() - committed,
                },
                emitted=effects.emitted,
                changes=len(effects.changes),
                dead=len(outcome.dead),
                fired=fired.timers,
            )
        )

    async def _handle(self, fetched: list[Any]) -> Outcome:
        """Handle a batch when it is its turn in this process. Between its chunks others' answers
        from the broker are heard, but no other batch is begun.
        """
        async with self.turn:
            steps = self.batches.steps(fetched, self.position, self.narrowing.refused)
            began = time.thread_time()
            try:
                while True:
                    next(steps)
                    if time.thread_time() - began > STRETCH_S:
                        await asyncio.sleep(0)
                        began = time.thread_time()
            except StopIteration as done:
                outcome: Outcome = done.value
                return outcome

    def until_due_s(self) -> float | None:
        """Seconds until the next timer is due, 0.0 when one is; None when there is none."""
        if self.next_due_us is None:
            return None
        return max(0.0, self.next_due_us / 1e6 - time.time())

    def measure(self) -> None:
        """Set the gauges of the state's size."""
        self.metrics.state_bytes.set(self.store.size_bytes())
        self.metrics.state_entries.set(self.store.entries())

    async def _commit(
        self,
        effects: Effects,
        gone: dict[bytes, None],
        after: Position,
        fetched: list[Any],
    ) -> tuple[int, Stages]:
        before = self.position.offsets
        offsets = {
            TopicPartition(topic, self.number): offset
            for topic, offset in after.offsets.items()
            if offset != before.get(topic)
        }
        changelog = (self.task.changelog, self.number)
        try:
            return await self.outbox.transact(
                Parcel(effects.outputs, changelog, effects.changes | gone, offsets)
            )
        except Refused as error:
            if not self.narrowing.failed(fetched, str(error)):
                raise Corrupt(
                    f"task {self.task.name}: the broker refuses a dead letter: {error}"
                ) from error
            raise

    def _report(self, dead: Sequence[DeadLetter]) -> None:
        """Log dead letters; of a flood only the first, and how many there were."""
        for letter in dead[:LOGGED_MAX]:
            structlog.get_logger().warning(
                "record_dead_lettered",
                task=self.task.name,
                topic=letter.topic,
                partition=self.number,
                offset=letter.offset,
                reason=letter.reason,
                of=len(dead),
            )

    def _fire(self) -> Fired:
        if self.until_due_s() != 0.0:
            return Fired()
        due = self.store.due(time.time_ns() // 1000, FIRE_MAX, self.due_from)
        return fire(self.task, self.context, due)

    def _look_for_due(self, changes: Mapping[bytes, bytes | None], fired: Fired) -> None:
        """Find the next due timer, without a walk over the remains of those that have fired."""
        if fired.entries:
            self.due_from = fired.entries[-1]
        for key, value in changes.items():
            if value is not None and keys.is_timer(key):
                self.due_from = min(self.due_from, keys.due_entry(key, value))
        self.next_due_us = self.store.first_due(self.due_from)
