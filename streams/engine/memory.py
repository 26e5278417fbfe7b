"""Runs a task in memory, with the engine's own batches: for the tests of a task.

Same order, log time, decoding, bisecting, dead letters and timers as the real engine; no Kafka,
no disk, and what is fed is committed at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from streams.engine import keys
from streams.engine.batch import Batches, Outcome
from streams.engine.context import Context, Out
from streams.engine.generations import Sweep
from streams.engine.position import Position
from streams.engine.task import Collection, Headers, Task
from streams.engine.timers import fire

T = TypeVar("T")
Feed = tuple[str, bytes | None, bytes | None, int]


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record as if fetched; `timestamp` in milliseconds."""

    topic: str
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class MemoryTask:
    """One partition of a task."""

    def __init__(self, task: Task, partition: int = 0, partitions: int = 4) -> None:
        self.state: dict[bytes, bytes] = {}
        self.outputs: dict[str, list[tuple[int, bytes | None, bytes | None, Headers]]]
        self.outputs = defaultdict(list)
        self.position = Position({})
        self._task = task
        self._partition = partition
        self._context = Context(task, partition, partitions, self.state.get)
        self._batches = Batches(task, self._context)
        self._sweep = Sweep(task, self._context, self._rows)
        self._next: dict[str, int] = defaultdict(int)

    def feed(self, records: Iterable[Feed], headers: tuple[tuple[str, bytes], ...] = ()) -> Outcome:
        """Hand over one batch of (topic, key, value, time in microseconds), in this order."""
        fetched = []
        for topic, key, value, at_us in records:
            fetched.append(
                MemoryRecord(topic, self._next[topic], at_us // 1000, key, value, headers)
            )
            self._next[topic] += 1
        return self.feed_fetched(fetched)

    def feed_fetched(self, fetched: list[MemoryRecord]) -> Outcome:
        """Hand over one batch of records with their own offsets, in this order."""
        try:
            outcome = self._batches.apply(fetched, self.position)
        except BaseException:
            self._context.reset()
            raise
        self._sweep.step(self.position.log_time_us, len(fetched))
        self.position = outcome.position
        self._commit()
        return outcome

    def fire(self, now_us: int) -> int:
        """Fire what is due at `now_us` and handle it; returns how many fired."""
        entries = sorted(
            keys.due_entry(key, value) for key, value in self.state.items() if keys.is_timer(key)
        )
        due = [entry for entry in entries if entry < keys.due_limit(now_us)]
        fire(self._task, self._context, due)
        written = self._commit()
        topic = self._task.timers_topic
        records = written.get((topic, self._partition), [])
        self.feed((topic, key, value, now_us) for key, value, _ in records)
        return len(records)

    def get(self, collection: Collection[T], slot: int, key: bytes) -> T | None:
        """Read the committed state."""
        raw: Any = self.state.get(collection.prefixes[slot] + key)
        return raw if raw is None or collection.decode is None else collection.decode(raw)

    def _rows(self, begin: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return sorted(row for row in self.state.items() if begin <= row[0] < end)[:limit]

    def _commit(self) -> dict[tuple[str, int], list[Out]]:
        effects = self._context.take()
        for (topic, partition), outs in effects.outputs.items():
            self.outputs[topic].extend((partition, *out) for out in outs)
        for key, value in effects.changes.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value
                if key[keys.COLLECTION_AT] == keys.DROPPED_ID and key[0] != keys.NO_SLOT:
                    begin, end = keys.dropped_range(key, value)
                    for gone in [each for each in self.state if begin <= each < end]:
                        del self.state[gone]
        self._context.committed()
        return effects.outputs
