"""The fake of the Link port: keeps records in memory, can be away, silent or slow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateways.kafka.outbox import Event
from schemas.errors import Unavailable


@dataclass(slots=True)
class MemoryLink:
    """`log[topic, partition]` holds what was acknowledged, in order.

    `away`: the broker is known to be gone. `failing`: each batch's outcome is unknown.
    """

    log: dict[tuple[str, int], list[Event]] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    away: bool = False
    failing: bool = False
    trouble: str | None = None
    _speaks: asyncio.Event | None = None

    def up(self) -> bool:
        """Tell whether the broker is there."""
        return not self.away

    async def send(self, topic: str, partition: int, events: Sequence[Event]) -> None:
        """Keep the batch."""
        self.batches.append(len(events))
        await asyncio.sleep(0)
        if self._speaks is not None:
            await self._speaks.wait()
        if self.failing:
            raise Unavailable("the batch's outcome is unknown")
        self.log.setdefault((topic, partition), []).extend(events)

    def fall_silent(self) -> None:
        """Acknowledge nothing from now on."""
        self._speaks = asyncio.Event()

    def speak(self) -> None:
        """Acknowledge what waits, and everything after it."""
        if self._speaks is not None:
            self._speaks.set()
        self._speaks = None

    def values(self, topic: str) -> list[bytes]:
        """Return every acknowledged value of a topic."""
        return [e.value for (name, _), events in self.log.items() if name == topic for e in events]
