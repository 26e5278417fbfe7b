"""Read everything that is to be compared: Kafka, the ledger, the views, the lake.

Talks to all of them, writes nowhere. On a running stack it takes a cut: what existed when it began
must come to rest (every wait has a bound), is then read from upstream to downstream, and the log
is read once more, so that nothing downstream lacks its cause. What does not come to rest in time
is left for the checks to find.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadtest.kafka_log import LogReader, all_partitions
from loadtest.verify import databases, frames, lake
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import pyarrow as pa

    from loadtest.kafka_log import Log, Offsets
    from loadtest.stack import Stack

SETTLE_WITHIN_S: Final = 30.0
_POLL_S: Final = 0.2
_ANSWERED: Final = "saga.answered"
_CREATIONS: Final = frozenset({"payment.create", "transfer.create", "account.open"})


@dataclass(frozen=True, slots=True, repr=False)
class Evidence:
    """All tables by name, the logs they came from, and what had not come to rest in time."""

    tables: dict[str, pa.Table]
    logs: dict[str, Log]
    unsettled: list[str]


async def gather(stack: Stack, say: Callable[[str], None]) -> Evidence:
    """Read a running stack; `say` gets a line about each step."""
    unsettled: list[str] = []
    async with LogReader(stack.kafka, all_partitions(TOPICS, stack.partitions)) as reader:
        begun = await reader.advance()
        say(f"kafka: {sum(map(len, reader.logs.values())):,} committed records")
        tracker = _Tracker(reader.logs, begun)
        if not await _within(lambda: _ended(reader, tracker)):
            unsettled.append(f"{tracker.open} requests have no outcome")
        cut = await reader.advance()
        wanted = last_records(reader.logs, cut)
        decided = databases.decided_offsets
        if not await _within(lambda: _reached(decided, stack.ledger_dsn, wanted)):
            unsettled.append("the ledger has not decided every command")
        tables = await databases.snapshot(stack.ledger_dsn, databases.LEDGER_TABLES)
        say(f"ledger: {tables['outcomes'].num_rows:,} rows in the journal")
        seen = databases.viewed_offsets
        if not await _within(lambda: _reached(seen, stack.views_dsn, wanted)):
            unsettled.append("the views do not show every event")
        tables |= await databases.snapshot(stack.views_dsn, databases.VIEW_TABLES)
        say(f"views: {tables['view_payments'].num_rows:,} payments")
        landed = _Lake(stack)
        if not await _within(lambda: landed.reached(wanted)):
            unsettled.append("the lake has not landed every record")
        tables |= await asyncio.to_thread(landed.tables)
        rows = sum(t.num_rows for name, t in tables.items() if name.startswith("bronze_"))
        say(f"lake: {rows:,} rows in bronze")
        await reader.advance()
        tables |= log_tables(reader.logs, reader.first, cut)
        return Evidence(tables, reader.logs, unsettled)


def log_tables(logs: Mapping[str, Log], first: Offsets, cut: Offsets) -> dict[str, pa.Table]:
    """Return the tables that are made of the log alone."""
    tables = {frames.table_name(topic): frames.log_table(log, cut) for topic, log in logs.items()}
    tables["bounds"] = frames.bounds_table(first, cut)
    tables["dead"] = frames.dead_table(logs)
    return tables


def last_records(logs: Mapping[str, Log], cut: Offsets) -> Offsets:
    """Return the offset after the last record before the cut: what a reader must have passed.

    The cut itself may lie behind transaction markers, which no reader is told of.
    """
    found: Offsets = {}
    for topic, log in logs.items():
        for partition, offset in zip(log.partitions, log.offsets, strict=True):
            if offset < cut[topic, partition]:
                found[topic, partition] = offset + 1  # offsets rise within a partition
    return found


class _Tracker:
    """Which of the requests below the cut have no outcome yet, as the log grows.

    A payment, a transfer and an account are decided by an event beyond `accepted`; what is done to
    one later by an event that names the operation. Where nothing has such events (a dry run, the
    reversal of a transfer) the ledger's answer is the outcome.
    """

    def __init__(self, logs: Mapping[str, Log], cut: Offsets) -> None:
        self._events, self._answers = logs["payments.events"], logs["ledger.events"]
        self._seen = self._heard = 0
        asked = logs["payments.requests"]
        old = [
            record
            for i, record in enumerate(frames.decoded(asked))
            if record and asked.offsets[i] < cut[asked.topic, asked.partitions[i]]
        ]
        begun = [record for record in old if record["type"] in _CREATIONS]
        self._asked = {(r["resource_id"], None) for r in begun if not r["dry_run"]}
        self._tried = {(r["resource_id"], r["identity"]) for r in begun if r["dry_run"]}
        known = {record["resource_id"] for record in begun}
        for record in old:
            kind, place = record["type"], (record["resource_id"], record["identity"])
            if kind in _CREATIONS or kind == _ANSWERED:
                continue
            if record["resource_id"] in known:
                self._asked.add(place)
            elif not kind.startswith("payment."):
                self._tried.add(place)
        self.look()

    @property
    def open(self) -> int:
        """Return how many have none."""
        return len(self._asked) + len(self._tried)

    def look(self) -> None:
        """Take in what was read since the last time."""
        for record in frames.decoded(self._events)[self._seen :]:
            if record and record["operation_id"] is not None:
                self._asked.discard((record["resource_id"], record["operation_id"]))
            elif record and record["status"] != "accepted":
                self._asked.discard((record["resource_id"], None))
        for record in frames.decoded(self._answers)[self._heard :]:
            if record:
                self._tried.discard((record["saga_id"], record["identity"]))
        self._seen, self._heard = len(self._events), len(self._answers)


class _Lake:
    """The lake's catalog, and which topics have not been landed up to the cut."""

    def __init__(self, stack: Stack) -> None:
        self._catalog = lake.open_catalog(stack.lake_dsn, stack.warehouse)
        self._behind = set(TOPICS)

    async def reached(self, wanted: Offsets) -> bool:
        """Tell whether every topic is landed that far, by the tables' own account."""
        return await asyncio.to_thread(self._look, wanted)

    def _look(self, wanted: Offsets) -> bool:
        for topic in tuple(self._behind):
            landed = lake.next_offsets(self._catalog, topic)
            ends = {p: end for (name, p), end in wanted.items() if name == topic}
            if all(landed.get(partition, 0) >= end for partition, end in ends.items()):
                self._behind.discard(topic)
        return not self._behind

    def tables(self) -> dict[str, pa.Table]:
        """Return every bronze table and every table of rejects."""
        tables = {}
        for topic in TOPICS:
            tables[frames.bronze_name(topic)] = lake.bronze(self._catalog, topic)
            tables[frames.rejects_name(topic)] = lake.rejects(self._catalog, topic)
        return tables


async def _ended(reader: LogReader, tracker: _Tracker) -> bool:
    if tracker.open:
        await reader.advance()
        tracker.look()
    return not tracker.open


async def _reached(offsets: Callable[[str], Awaitable[Offsets]], dsn: str, wanted: Offsets) -> bool:
    found = await offsets(dsn)
    return all(next_offset >= wanted.get(place, 0) for place, next_offset in found.items())


async def _within(true: Callable[[], Awaitable[bool]]) -> bool:
    """Wait for a condition, within the bound; tell whether it came true."""
    deadline = time.monotonic() + SETTLE_WITHIN_S
    while not await true():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True
