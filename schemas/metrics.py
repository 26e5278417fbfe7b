"""How a process shows itself: Prometheus metrics on loopback, and the gauge that says it is ready.

Names: base units as suffix (`_seconds`, `_bytes`), `_total` for counters, prefix `headrace_`.
Labels are bounded (partition, topic, reason, route), never an id. Children are bound once,
outside hot loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Thread
from typing import Final, Generic, TypeVar
from wsgiref.simple_server import WSGIServer

from prometheus_client import Counter, Gauge, start_http_server

READY: Final = Gauge("headrace_ready", "1 when this process serves, 0 while it starts or can't")

SECONDS_BUCKETS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
COUNT_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000)


K = TypeVar("K")


class Tally(Generic[K]):
    """Counts for these counters, told to them by `tell`: each telling takes a lock, which is dear
    for every record.
    """

    def __init__(self, counters: Mapping[K, Counter]) -> None:
        self._counters = counters
        self._waiting = dict.fromkeys(counters, 0)

    def count(self, of: K) -> None:
        """Count one more of those that were named."""
        self._waiting[of] += 1

    def tell(self) -> None:
        """Add what was counted since the last time."""
        for each, count in self._waiting.items():
            if count:
                self._counters[each].inc(count)
                self._waiting[each] = 0


def serve(port: int) -> tuple[WSGIServer, Thread]:
    """Serve /metrics on 127.0.0.1:`port` from a thread of its own."""
    server, thread = start_http_server(port, addr="127.0.0.1")
    return server, thread
