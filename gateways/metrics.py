"""What a gateway shows of itself: RED per route, accept to ack, queues, replies, webhooks.

Children are bound once; labels are bounded (routes and sources are ours, methods are known ones).
"""

from __future__ import annotations

from functools import cache
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from schemas.metrics import COUNT_BUCKETS, SECONDS_BUCKETS

_REQUESTS: Final = Counter(
    "headrace_http_requests_total", "Requests answered", ["route", "method", "status"]
)
_SECONDS: Final = Histogram(
    "headrace_http_request_seconds",
    "From a request read to its answer given",
    ["route"],
    buckets=SECONDS_BUCKETS,
)
IN_FLIGHT: Final = Gauge("headrace_http_in_flight", "Requests read and not yet answered")
CONNECTIONS: Final = Gauge("headrace_http_connections", "Connections open")

ACCEPT_TO_ACK: Final = Histogram(
    "headrace_accept_to_ack_seconds",
    "From an event offered to Kafka's acknowledgement",
    buckets=SECONDS_BUCKETS,
)
OUTBOX_RECORDS: Final = Gauge("headrace_outbox_records", "Events not yet acknowledged")
OUTBOX_BYTES: Final = Gauge("headrace_outbox_bytes", "Their size")
OUTBOX_BATCH: Final = Histogram(
    "headrace_outbox_batch_records", "Events in one batch", buckets=COUNT_BUCKETS
)
OUTBOX_RESULTS: Final = Counter(
    "headrace_outbox_events_total",
    "Events by what became of them: acknowledged, unsent (given up before they were sent), "
    "unconfirmed (sent, no answer in time), late (unconfirmed, then acknowledged), "
    "refused (no room or no broker)",
    ["result"],
)
BROKER_UP: Final = Gauge("headrace_broker_up", "1 while Kafka has answered within the last seconds")
RECONNECTS: Final = Counter("headrace_producer_reconnects_total", "Producers replaced", ["reason"])

WAITERS: Final = Gauge("headrace_waiting_requests", "Requests that wait for an outcome")
REPLIES: Final = Counter(
    "headrace_replies_total",
    "Replies read: matched, unknown (another gateway's, or too late), poisoned",
    ["result"],
)
IDEMPOTENCY: Final = Counter(
    "headrace_idempotency_outcomes_total",
    "Creations by what their key was found to be here: new, replayed, conflict",
    ["outcome"],
)
RECENT: Final = Gauge("headrace_recent_ids", "Ids that this gateway remembers")
WEBHOOKS: Final = Counter(
    "headrace_webhook_verifications_total", "Deliveries by source and verdict", ["source", "result"]
)
VIEWS_SECONDS: Final = Histogram(
    "headrace_views_query_seconds", "Reads of the views database", buckets=SECONDS_BUCKETS
)

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def observe(route: str, method: str, status: int, seconds: float) -> None:
    """Count one answered request."""
    count, duration = _bound(route, method if method in _METHODS else "other", status // 100)
    count.inc()
    duration.observe(seconds)


@cache
def _bound(route: str, method: str, status_class: int) -> tuple[Counter, Histogram]:
    count = _REQUESTS.labels(route=route, method=method, status=f"{status_class}xx")
    return count, _SECONDS.labels(route=route)
