"""The topic table: who writes each topic, how it is keyed, kept and landed in the lake.

Topics are created from this table and checked against it; a topic without a row does not exist.
Every row names an owner, a retention and a residency. A dead-letter topic carries the original
bytes as its value and the reason in its headers; changelogs carry a task's own binary state; both
land in the lake as bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

DAY_MS: Final = 86_400_000

Landing = Literal["decoded", "raw"]


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `partitions` 0 stands for HEADRACE_PARTITIONS; `retention_ms` -1 for ever."""

    name: str
    key: str
    owner: str
    retention_ms: int
    compacted: bool = False
    landing: Landing = "decoded"
    residency: str = "home"
    partitions: int = 0

    @property
    def subject(self) -> str | None:
        """The schema subject of its values, as every registry tool names it; None for raw bytes."""
        return f"{self.name}-value" if self.landing == "decoded" else None

    def kafka_config(self) -> dict[str, str]:
        """Return the configuration the topic is created with and checked against."""
        config = {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "message.timestamp.type": "CreateTime",
            "max.message.bytes": str(MESSAGE_BYTES_MAX),
        }
        if self.compacted:
            config |= CHANGELOG
        else:
            config["retention.ms"] = str(self.retention_ms)
        return config


CHANGELOG: Final = {
    "segment.bytes": str(32 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.2",
    "delete.retention.ms": str(DAY_MS),
}
"""What bounds how much more than its live keys a changelog holds, and so how long a restore takes:
the segment that is written, which is never compacted, and the part of the rest that may be stale.
"""

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bound of one record batch; a producer's own batches stay below it."""

TASKS: Final = ("payments", "webhooks")
"""The stream tasks; each has a compacted changelog of its own."""


TASKS_WITH_TIMERS: Final = ("payments",)


def changelog(task: str) -> str:
    """Name the changelog of a task."""
    return f"{task}.changelog"


def timers(task: str) -> str:
    """Name the topic that a task's timers fire on."""
    return f"{task}.timers"


def dead_letters(topic: str) -> str:
    """Name the topic that takes what could not be processed from `topic`."""
    return f"{topic}.dlq"


def _rows() -> list[Topic]:
    rows = [
        Topic("payments.requests", "home account", "gateways", 30 * DAY_MS),
        Topic("webhooks.received", "source:event id", "gateways", 30 * DAY_MS),
        Topic("webhooks.quarantine", "source:event id", "gateways", 90 * DAY_MS),
        Topic("webhooks.events", "source:event id", "streams", 30 * DAY_MS),
        Topic("ledger.commands", "home account", "streams", 30 * DAY_MS),
        Topic("ledger.events", "home account", "ledger_writer", 30 * DAY_MS),
        Topic("payments.events", "home account", "streams", 30 * DAY_MS),
        Topic("gateway.replies", "none: the partition is the gateway's", "streams", DAY_MS),
    ]
    rows += [
        Topic(
            changelog(task), "slot, collection, key", "streams", -1, compacted=True, landing="raw"
        )
        for task in TASKS
    ]
    rows += [
        Topic(timers(task), "slot and name", "streams", 30 * DAY_MS, landing="raw")
        for task in TASKS_WITH_TIMERS
    ]
    consumed = (
        ("payments.requests", "streams"),
        ("payments.timers", "streams"),
        ("webhooks.received", "streams"),
        ("ledger.events", "streams"),
        ("ledger.commands", "ledger_writer"),
        ("payments.events", "streams.views"),
        ("webhooks.events", "streams.views"),
    )
    rows += [
        Topic(dead_letters(topic), "as its source", owner, 90 * DAY_MS, landing="raw")
        for topic, owner in consumed
    ]
    return rows


TOPICS: Final[dict[str, Topic]] = {topic.name: topic for topic in _rows()}
