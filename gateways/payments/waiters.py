"""Requests that wait for their outcome, each with a deadline. Memory with a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateways import metrics
from gateways.kafka.reply import Reply

OnOutcome = Callable[[Reply | None], None]


@dataclass(slots=True)
class _Waiter:
    on_outcome: OnOutcome
    timer: asyncio.TimerHandle


class Waiters:
    """Calls each waiter once: with the reply to its request, or with None when its time is over."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._ended = False
        self._waiters: dict[str, _Waiter] = {}
        self._matched = metrics.REPLIES.labels(result="matched")
        self._unknown = metrics.REPLIES.labels(result="unknown")

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def full(self) -> bool:
        """Tell whether no further request can wait."""
        return self._ended or len(self._waiters) >= self._count_max

    def expect(self, request_id: str, seconds: float, on_outcome: OnOutcome) -> None:
        """Call `on_outcome` later, once."""
        assert not self.full, "the caller asks before"
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self._expire, request_id)
        self._waiters[request_id] = _Waiter(on_outcome, timer)

    def forget(self, request_id: str) -> None:
        """Call this waiter no more."""
        waiter = self._waiters.pop(request_id, None)
        if waiter is not None:
            waiter.timer.cancel()

    def resolve(self, reply: Reply) -> None:
        """Hand a reply to whoever waits for it here."""
        waiter = self._waiters.get(reply.request_id)
        if waiter is None:
            self._unknown.inc()
            return
        self._matched.inc()
        self.forget(reply.request_id)
        waiter.on_outcome(reply)

    def expire_all(self) -> None:
        """End every wait now, and take no new one: the process ends."""
        self._ended = True
        for request_id in tuple(self._waiters):
            self._expire(request_id)

    def _expire(self, request_id: str) -> None:
        waiter = self._waiters.get(request_id)
        if waiter is not None:
            self.forget(request_id)
            waiter.on_outcome(None)
