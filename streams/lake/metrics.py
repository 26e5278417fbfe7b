"""The lake's metrics, labelled by topic only."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from schemas.metrics import COUNT_BUCKETS, SECONDS_BUCKETS

ROWS: Final = Counter("headrace_lake_rows_total", "Records landed in bronze", ["topic"])
REJECTS: Final = Counter(
    "headrace_lake_rejects_total", "Records landed as bytes because they do not decode", ["topic"]
)
COMMIT_ROWS: Final = Histogram(
    "headrace_lake_commit_rows", "Records of one commit", ["topic"], buckets=COUNT_BUCKETS
)
COMMIT_SECONDS: Final = Histogram(
    "headrace_lake_commit_seconds",
    "Decoding, writing and committing one batch",
    ["topic"],
    buckets=SECONDS_BUCKETS,
)
FRESHNESS: Final = Gauge(
    "headrace_lake_freshness_seconds",
    "Age of the newest landed record at the moment it landed",
    ["topic"],
)
LAG: Final = Gauge(
    "headrace_lake_lag_offsets", "Offsets between the table's end and the log's", ["topic"]
)
LOST: Final = Counter(
    "headrace_lake_lost_offsets_total",
    "Offsets that the log dropped before they could land",
    ["topic"],
)
SESSIONS: Final = Counter(
    "headrace_lake_sessions_total", "Takeovers of the tables, the first included"
)
