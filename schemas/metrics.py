"""How a process shows itself: Prometheus metrics on loopback, and the gauge that says it is ready.

Names: base units as suffix (`_seconds`, `_bytes`), `_total` for counters, prefix `headrace_`.
Labels are bounded (partition, topic, reason, route), never an id. Children are bound once,
outside hot loops.
"""

from __future__ import annotations

from threading import Thread
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import Gauge, start_http_server

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


def serve(port: int) -> tuple[WSGIServer, Thread]:
    """Serve /metrics on 127.0.0.1:`port` from a thread of its own."""
    server, thread = start_http_server(port, addr="127.0.0.1")
    return server, thread
