"""Is this gateway alive, is it ready: /healthz, /readyz, /metrics.

Ready means that a request would be taken now: the broker has answered within seconds, replies are
read, and no drain has begun. Reads may still be Down: the views are not part of it, since payments
don't need them.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateways.http.exchange import Exchange
from schemas.metrics import READY

_METRICS_TYPE: Final = CONTENT_TYPE_LATEST.encode()
_encode = msgspec.json.Encoder().encode


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that readiness depends on."""

    name: str
    ok: bool
    detail: str | None = None


class Readiness(msgspec.Struct, frozen=True):
    """Ready when every check is ok."""

    ready: bool
    checks: list[Check]


class Broker(Protocol):
    """What is known of the broker."""

    trouble: str | None

    def up(self) -> bool: ...


class Replies(Protocol):
    """What is known of the replies."""

    @property
    def positioned(self) -> bool: ...


class Health:
    """Handlers of the routes that others watch."""

    def __init__(self, broker: Broker, replies: Replies) -> None:
        self._broker = broker
        self._replies = replies
        self.draining = False

    def readiness(self) -> Readiness:
        """Return what holds now."""
        up, positioned = self._broker.up(), self._replies.positioned
        trouble = self._broker.trouble or "no answer for some seconds"
        checks = [
            Check("kafka", up, None if up else trouble),
            Check("replies", positioned, None if positioned else "no position yet"),
            Check("serving", not self.draining, "draining" if self.draining else None),
        ]
        ready = all(check.ok for check in checks)
        READY.set(ready)
        return Readiness(ready, checks)

    @staticmethod
    def healthz(exchange: Exchange) -> None:
        """GET /healthz: the process answers."""
        exchange.answer(200, b'{"ok":true}')

    def readyz(self, exchange: Exchange) -> None:
        """GET /readyz: 200 when a request would be taken now, else 503 and why."""
        readiness = self.readiness()
        if readiness.ready:
            exchange.answer(200, _encode(readiness))
        else:
            exchange.answer(503, _encode(readiness), b"Retry-After: 1\r\n")

    @staticmethod
    def metrics(exchange: Exchange) -> None:
        """GET /metrics."""
        exchange.answer(200, generate_latest(), media_type=_METRICS_TYPE)
