"""Makes events durable: a queue and one batch on its way per topic and partition.

An event is answered for exactly once, by its `done`: with None once Kafka has acknowledged its
batch (acks=all), with Down when its time is over. Memory is bounded by records and bytes; past the
bound, and while Kafka is known to be away, an event is refused at once. Events of one batch share
one future; while a batch is on its way the next one gathers, so batches grow with the load.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateways import metrics
from gateways.problems import Down
from schemas.errors import Unavailable

Done = Callable[[Down | None], None]
Headers = tuple[tuple[str, bytes], ...]

_RECORD_OVERHEAD_BYTES: Final = 64

UNSENT: Final = Down(
    "broker_unavailable",
    "The event log did not take the request in time. Retry with the same Idempotency-Key.",
)
UNCONFIRMED: Final = Down(
    "broker_unavailable",
    "The event log did not confirm in time: the request may still be accepted. Retry with the same "
    "Idempotency-Key; it can't be executed twice.",
)


@dataclass(slots=True)
class Event:
    """One record to be written, and whom to tell. `at_ms` is its timestamp, wall clock."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: Headers
    at_ms: int
    done: Done
    expires_at: float = 0.0
    offered_at: float = 0.0
    answered: bool = False

    @property
    def size(self) -> int:
        """What it counts for, in bytes."""
        return len(self.key) + len(self.value) + _RECORD_OVERHEAD_BYTES


class Link(Protocol):
    """The way to the broker."""

    def up(self) -> bool:
        """Tell whether the broker has answered lately."""
        ...

    async def send(self, topic: str, partition: int, events: Sequence[Event]) -> None:
        """Write one batch; return when it is acknowledged by all. Unavailable: outcome unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of one outbox. `pace_s` is the least time between two sendings: a request to the
    broker costs both sides much the same for 1 event as for 20, so under load they gather."""

    records_max: int = 20_000
    bytes_max: int = 64 * 1024 * 1024
    batch_records_max: int = 2_000
    batch_bytes_max: int = 1024 * 1024
    deadline_s: float = 1.5
    pace_s: float = 0.004
    tick_s: float = 0.05


@dataclass(slots=True)
class _Lane:
    topic: str
    partition: int
    queue: deque[Event] = field(default_factory=deque)
    sending: list[Event] = field(default_factory=list)


class Outbox:
    """Takes events and sees to each one's end."""

    def __init__(
        self, link: Link, bounds: Bounds | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._link = link
        self._bounds = bounds or Bounds()
        self._now = now
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._ready: list[_Lane] = []
        self._sent_at = 0.0
        self._records = 0
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._results = {
            name: metrics.OUTBOX_RESULTS.labels(result=name)
            for name in ("acknowledged", "unsent", "unconfirmed", "late", "refused")
        }

    @property
    def records(self) -> int:
        """Events not yet acknowledged or given up, those on their way included."""
        return self._records

    @property
    def size(self) -> int:
        """Their bytes."""
        return self._bytes

    def offer(self, event: Event) -> None:
        """Take an event; Down when there is no room or no broker. `done` is called later."""
        if not self._link.up():
            self._results["refused"].inc()
            raise Down("broker_unavailable", "The event log does not answer. Retry later.")
        if self._records >= self._bounds.records_max or self._bytes >= self._bounds.bytes_max:
            self._results["refused"].inc()
            raise Down("overloaded", "Too many requests wait for the event log. Retry later.")
        event.offered_at = self._now()
        event.expires_at = event.offered_at + self._bounds.deadline_s
        self._records += 1
        self._bytes += event.size
        lane = self._lanes.get((event.topic, event.partition))
        if lane is None:
            lane = self._lanes.setdefault(
                (event.topic, event.partition), _Lane(event.topic, event.partition)
            )
        if not lane.queue and not lane.sending:
            self._make_ready(lane)
        lane.queue.append(event)

    async def run(self) -> None:
        """Give up what is over its time, for ever."""
        while True:
            self.expire(self._now())
            await asyncio.sleep(self._bounds.tick_s)

    def expire(self, now: float) -> None:
        """Answer for every event whose time is over. One on its way may still arrive."""
        for lane in self._lanes.values():
            while lane.queue and lane.queue[0].expires_at <= now:
                event = lane.queue.popleft()
                self._release(event)
                self._give_up(event, UNSENT, "unsent")
            for event in lane.sending:
                if event.expires_at > now:
                    break
                if not event.answered:
                    self._give_up(event, UNCONFIRMED, "unconfirmed")

    async def drain(self, within_s: float) -> None:
        """Wait until everything is acknowledged or given up."""
        deadline = self._now() + within_s
        while self._tasks and self._now() < deadline:
            await asyncio.wait(self._tasks, timeout=max(0.0, deadline - self._now()))
        for task in self._tasks:
            task.cancel()

    def _make_ready(self, lane: _Lane) -> None:
        """Send what the lane holds at the next sending: at once when the last one is long ago."""
        if not self._ready:
            loop, due = asyncio.get_running_loop(), self._sent_at + self._bounds.pace_s
            delay = due - self._now()
            if delay <= 0:
                loop.call_soon(self._send_ready)
            else:
                loop.call_later(delay, self._send_ready)
        self._ready.append(lane)

    def _send_ready(self) -> None:
        ready, self._ready = self._ready, []
        self._sent_at = self._now()
        for lane in ready:
            self._send_next(lane)

    def _send_next(self, lane: _Lane) -> None:
        if lane.sending or not lane.queue:
            return
        size = 0
        while lane.queue and len(lane.sending) < self._bounds.batch_records_max:
            size += lane.queue[0].size
            if lane.sending and size > self._bounds.batch_bytes_max:
                break
            lane.sending.append(lane.queue.popleft())
        metrics.OUTBOX_BATCH.observe(len(lane.sending))
        task = asyncio.get_running_loop().create_task(self._send(lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, lane: _Lane) -> None:
        error: Down | None = UNCONFIRMED
        try:
            await self._link.send(lane.topic, lane.partition, lane.sending)
            error = None
        except Unavailable:
            pass  # unconfirmed: the link says so to its log
        finally:
            sent, lane.sending = lane.sending, []
            if lane.queue:
                self._make_ready(lane)
            self._conclude(sent, error)

    def _conclude(self, sent: list[Event], error: Down | None) -> None:
        now, waiting = self._now(), [event for event in sent if not event.answered]
        self._results["unconfirmed" if error else "acknowledged"].inc(len(waiting))
        if error is None and len(waiting) < len(sent):
            self._results["late"].inc(len(sent) - len(waiting))
        for event in sent:
            self._release(event)
        for event in waiting:
            event.answered = True
            if error is None:
                metrics.ACCEPT_TO_ACK.observe(now - event.offered_at)
            event.done(error)

    def _release(self, event: Event) -> None:
        self._records -= 1
        self._bytes -= event.size

    def _give_up(self, event: Event, error: Down, result: str) -> None:
        event.answered = True
        self._results[result].inc()
        event.done(error)
