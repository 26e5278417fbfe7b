"""Brings a partition's store to what its changelog has committed.

Reads `read_committed` up to the last stable offset, never to the high watermark: commit markers
take offsets. A store that is of this cluster and young enough needs the tail alone; any other is
emptied and rebuilt, and has its mark only when it is whole. Called by the owner of the partition's
transactional id, so nobody else writes the changelog meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiokafka
from aiokafka import TopicPartition, errors

from streams.engine import lean
from streams.engine.crash import CrashPoint
from streams.engine.deadline import CLOSE_WITHIN_S, answered, ended, hang_up
from streams.engine.faults import raise_translated
from streams.engine.settings import EngineSettings
from streams.engine.store import Mark, Store, usable

POLL_MS: Final = 250
FETCH_BYTES: Final = 2 * 1024 * 1024
"""Thousands of records; with more than this the client copies more and is slower."""

Progress = Callable[[int, int], None]
"""Called with the offset reached and the one to reach."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did; `rebuilt` when it began from nothing. `firsts` are the inputs' first
    offsets, as the broker told them before it.
    """

    records: int
    rebuilt: bool
    seconds: float
    firsts: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a state comes from: the changelog's partition, its cluster, and the inputs that it was
    made from.
    """

    changelog: TopicPartition
    cluster: str
    inputs: tuple[TopicPartition, ...] = ()


async def restore(
    store: Store,
    source: Source,
    settings: EngineSettings,
    crash: CrashPoint,
    progress: Progress,
) -> Restored:
    """Apply what the store lacks. Raises Unavailable when the broker stops answering."""
    began = time.perf_counter()
    changelog = source.changelog
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap,
        client_id=f"{settings.worker}-restore",
        group_id=None,
        isolation_level="read_committed",
        auto_offset_reset="none",
        max_partition_fetch_bytes=FETCH_BYTES,
        fetch_max_wait_ms=50,
        request_timeout_ms=settings.request_timeout_ms,
    )
    try:
        firsts, end = await answered(_bounds(consumer, source), settings.broker_within_s)
        start, rebuilt = _start(store, source.cluster, firsts.pop(changelog), end)
        consumer.seek(changelog, start)
        apply = _Apply(consumer, source, store, settings, crash, progress)
        records = await apply.until(start, end, rebuilt=rebuilt)
    except (errors.KafkaError, OSError) as error:
        raise_translated(error)
    finally:
        if not await ended(consumer.stop(), CLOSE_WITHIN_S):
            # It waits for a broker that does not answer: hang up without it.
            await ended(consumer._client.close(), CLOSE_WITHIN_S)  # noqa: SLF001
        hang_up(consumer._client)  # noqa: SLF001
    return Restored(records, rebuilt, time.perf_counter() - began, firsts)


async def _bounds(consumer: Any, source: Source) -> tuple[dict[TopicPartition, int], int]:
    """Return where changelog and inputs begin, and where the changelog ends.

    The inputs too, as the connection that fetches them is no place to ask: an answer waits there
    behind a fetch that waits for records.
    """
    await consumer.start()
    lean.makes(consumer, lean.change)
    asked = [source.changelog, *source.inputs]
    await consumer._client.set_topics([tp.topic for tp in asked])  # noqa: SLF001
    consumer.assign([source.changelog])
    firsts = await consumer.beginning_offsets(asked)
    end = await consumer.end_offsets([source.changelog])
    return firsts, end[source.changelog]


def _start(store: Store, cluster: str, first: int, end: int) -> tuple[int, bool]:
    mark = store.mark()
    if usable(mark, cluster, end):
        assert mark is not None, "only an existing mark is usable"
        if mark.next_offset >= first:
            return mark.next_offset, False
    store.rebuild()
    return first, True


@dataclass(slots=True)
class _Apply:
    consumer: Any
    source: Source
    store: Store
    settings: EngineSettings
    crash: CrashPoint
    progress: Progress

    async def until(self, start: int, end: int, *, rebuilt: bool) -> int:
        """Apply records from `start` to before `end`; returns how many."""
        reached, applied = start, 0
        # The marker of the last commit alone is no reason to wait for a fetch.
        while reached < end - 1:
            step = self._next(reached)
            reached, changes = await answered(step, self.settings.broker_within_s)
            if changes:
                if rebuilt:
                    self.store.pour(changes)
                else:
                    self.store.write(dict(changes), self._mark(reached))
                applied += len(changes)
                self.crash.at("in_restore")
            self.progress(reached, end)
        if rebuilt:
            self.store.whole(self._mark(reached))
        self.progress(end, end)
        return applied

    def _mark(self, reached: int) -> Mark:
        return Mark(self.source.cluster, reached, time.time())

    async def _next(self, reached: int) -> tuple[int, list[tuple[bytes, bytes | None]]]:
        """Return the offset reached and what came; waits until the offset moves."""
        while True:
            fetched = await self.consumer.getmany(self.source.changelog, timeout_ms=POLL_MS)
            now = await self.consumer.position(self.source.changelog)
            if now > reached:
                return now, fetched.get(self.source.changelog, [])
