"""Send every request at its intended time, whatever the server does, and say how that went.

Talks to the gateway over a bounded set of connections. A request that finds no free connection
waits in line and its latency grows, as its client's would; nothing is skipped, slowed down or left
out. Each request ends once: answered, or given up after bounded attempts with the same key.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

from loadtest.generator.answers import REFUSED, Answer, retry_in_s
from loadtest.generator.connection import Connection
from loadtest.generator.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.generator.render import Target

CONNECTIONS_MAX: Final = 96
TIMEOUT_S: Final = 5.0
_NAP_S: Final = 0.05
_SWEEP_S: Final = 0.25


@dataclass(slots=True, eq=False)
class Shot:
    """One request and what became of it. Times count from the start; `tag` is the caller's."""

    at_s: float
    data: bytes
    tag: Any = None
    attempts: int = 0
    done_s: float = 0.0
    answer: Answer | None = None

    @property
    def latency_s(self) -> float:
        """Return the time from the intended moment to the final answer."""
        return self.done_s - self.at_s


@dataclass(slots=True)
class Health:
    """How well the generator itself kept up, and what went wrong on the way."""

    dispatch_late: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    queued_max: int = 0
    gave_up: int = 0
    cpu_s: float = 0.0
    seconds: float = 0.0


class OpenLoop:
    """Runs lists of shots against one target; `run` may be called again, connections stay open."""

    def __init__(
        self,
        target: Target,
        *,
        connections_max: int = CONNECTIONS_MAX,
        timeout_s: float = TIMEOUT_S,
        seed: int = 1,
    ) -> None:
        self._target = target
        self._connections_max = connections_max
        self._timeout_s = timeout_s
        self._random = Random(f"{seed}/retries")
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._opening = 0
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: deque[Shot] = deque()
        self._again: list[tuple[float, int, Shot]] = []
        self._ticket = itertools.count()
        self._start = 0.0
        self.started_at_s = 0.0
        self.health = Health()
        self.sent = 0
        self.pending = 0
        self._total = 0
        self.accepted = 0
        self.last_ok_at_s = 0.0

    @property
    def unanswered(self) -> int:
        """Return how many of those sent have not ended yet."""
        return self.sent - (self._total - self.pending)

    async def run(self, shots: Sequence[Shot]) -> Health:
        """Send the shots (sorted by `at_s`) and return when each has ended."""
        self.health = Health()
        self.sent = 0
        self.pending = self._total = len(shots)
        cpu, self._start, self.started_at_s = time.process_time(), time.monotonic(), time.time()
        sweeper = asyncio.create_task(self._sweep())
        try:
            await self._pump(shots)
        finally:
            sweeper.cancel()
        self.health.cpu_s = time.process_time() - cpu
        self.health.seconds = self._now()
        return self.health

    async def close(self) -> None:
        """Close every connection; return when all are gone."""
        for task in tuple(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for connection in tuple(self._open):
            connection.close()
        while self._open:  # noqa: ASYNC110  it empties by the loop's own callbacks
            await asyncio.sleep(0)

    async def _pump(self, shots: Sequence[Shot]) -> None:
        following = 0
        while self.pending:
            now = self._now()
            while following < len(shots) and shots[following].at_s <= now:
                shot = shots[following]
                following += 1
                self.sent += 1
                self.health.dispatch_late.add(now - shot.at_s)
                self._submit(shot)
            while self._again and self._again[0][0] <= now:
                self._submit(heapq.heappop(self._again)[2])
            due = shots[following].at_s if following < len(shots) else now + _NAP_S
            await asyncio.sleep(min(_NAP_S, max(0.0, due - self._now())))

    def _submit(self, shot: Shot) -> None:
        shot.attempts += 1
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self._write(connection, shot)
                return
        self._waiting.append(shot)
        self.health.queued_max = max(self.health.queued_max, len(self._waiting))
        self._provision()

    def _provision(self) -> None:
        """Open connections for those who wait in line, within the bound."""
        room = self._connections_max - len(self._open) - self._opening
        for _ in range(min(room, len(self._waiting) - self._opening)):
            self._opening += 1
            task = asyncio.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _write(self, connection: Connection, shot: Shot) -> None:
        connection.send(shot.data, shot, time.monotonic() + self._timeout_s)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._done, self._gone),
                    self._target.host,
                    self._target.port,
                )
        except (OSError, TimeoutError):
            self._opening -= 1
            if self._waiting:
                self._end(self._waiting.popleft(), Answer(0, error=REFUSED))
            self._provision()
            return
        self._opening -= 1
        self._open.add(connection)
        self._serve_next(connection)

    def _serve_next(self, connection: Connection) -> None:
        if not connection.usable:
            return
        if self._waiting:
            self._write(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _done(self, connection: Connection, shot: Shot, answer: Answer) -> None:
        self._end(shot, answer)
        self._serve_next(connection)

    def _gone(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._provision()

    def _end(self, shot: Shot, answer: Answer) -> None:
        now = self._now()
        if answer.ok:
            self.accepted += 1
            self.last_ok_at_s = time.time()
        else:
            self.health.errors[answer.label] += 1
        wait_s = retry_in_s(answer, shot.attempts, now - shot.at_s, self._random)
        if wait_s is not None:
            heapq.heappush(self._again, (now + wait_s, next(self._ticket), shot))
            return
        shot.answer, shot.done_s = answer, now
        self.pending -= 1
        self.health.gave_up += not answer.final

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            for connection in tuple(self._open):
                if connection.payload is not None and connection.deadline < now:
                    connection.expire()

    def _now(self) -> float:
        return time.monotonic() - self._start
