"""The views' metrics, labelled by topic only."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from schemas.metrics import COUNT_BUCKETS, SECONDS_BUCKETS

RECORDS: Final = Counter("headrace_views_records_total", "Records applied", ["topic"])
DEAD_LETTERS: Final = Counter(
    "headrace_views_dead_letters_total", "Records that can never be applied", ["topic"]
)
BATCH: Final = Histogram(
    "headrace_views_batch_records", "Records of one transaction", buckets=COUNT_BUCKETS
)
APPLY_SECONDS: Final = Histogram(
    "headrace_views_apply_seconds", "Folding and writing one batch", buckets=SECONDS_BUCKETS
)
FRESHNESS: Final = Histogram(
    "headrace_views_freshness_seconds",
    "From a batch's oldest record being written to its rows being readable",
    buckets=SECONDS_BUCKETS,
)
LAG: Final = Gauge("headrace_views_lag_offsets", "Offsets not applied yet", ["topic"])
SESSIONS: Final = Counter("headrace_views_sessions_total", "Joins of the group, the first included")
FENCED: Final = Counter("headrace_views_fenced_total", "Batches refused because another owner came")
