"""What a running stack looks like now: its processes, and how far each group is behind.

Lag is the distance from a group's committed offset to the end of the log. The ledger's own
position is in its database; the offset it commits to Kafka is a hint for this display.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer

from deploy.local.admin import connected

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka import TopicPartition


@dataclass(frozen=True, slots=True)
class Lag:
    """One group on one topic: records not yet consumed, and how many partitions it committed."""

    group: str
    topic: str
    lag: int
    partitions: int


async def lags(bootstrap: str) -> list[Lag]:
    """Every group's lag by topic."""
    async with connected(bootstrap) as admin:
        groups = sorted({entry[0] for entry in await admin.list_consumer_groups()})
        committed = {
            group: {
                part: meta.offset
                for part, meta in (await admin.list_consumer_group_offsets(group)).items()
                if meta.offset >= 0
            }
            for group in groups
        }
    ends = await _ends(bootstrap, {part for parts in committed.values() for part in parts})
    return [lag for group, parts in committed.items() for lag in _by_topic(group, parts, ends)]


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Rows as aligned columns; the first row is the head."""
    lines = list(rows)
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in lines
    )


def process_rows(stack: dict[str, Any], ready: dict[str, bool]) -> list[tuple[str, ...]]:
    """A head and one row for each process of `stack.json`."""
    head = ("NAME", "PID", "READY", "UP", "RESTARTS", "METRICS")
    return [head, *(_row(process, ready) for process in stack["servers"] + stack["processes"])]


def _row(process: dict[str, Any], ready: dict[str, bool]) -> tuple[str, ...]:
    return (
        process["name"],
        str(process["pid"]),
        "yes" if ready[process["name"]] else "no",
        _duration(time.time() - process["started_at"]),
        str(process["restarts"]),
        process["metrics_url"] or "",
    )


def _by_topic(
    group: str, committed: dict[TopicPartition, int], ends: dict[TopicPartition, int]
) -> list[Lag]:
    topics = sorted({part.topic for part in committed})
    return [
        Lag(
            group,
            topic,
            sum(max(0, ends[p] - offset) for p, offset in committed.items() if p.topic == topic),
            sum(p.topic == topic for p in committed),
        )
        for topic in topics
    ]


async def _ends(bootstrap: str, parts: set[TopicPartition]) -> dict[TopicPartition, int]:
    if not parts:
        return {}
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(list(parts))
        return ends
    finally:
        await consumer.stop()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
