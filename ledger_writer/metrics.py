"""What the writer shows of itself, per partition; children are bound once per partition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from schemas.metrics import COUNT_BUCKETS, SECONDS_BUCKETS

_OF: Final = ("partition",)

_OUTCOMES: Final = Counter(
    "headrace_ledger_outcomes_total", "Commands decided, by type of event", (*_OF, "type")
)
_REJECTIONS: Final = Counter(
    "headrace_ledger_rejections_total", "Commands refused, by reason", (*_OF, "reason")
)
_REPEATS: Final = Counter("headrace_ledger_repeats_total", "Commands that had their outcome", _OF)
_POISONED: Final = Counter("headrace_ledger_poisoned_total", "Records dead-lettered", _OF)
_BATCH: Final = Histogram(
    "headrace_ledger_batch_records", "Records of one batch", _OF, buckets=COUNT_BUCKETS
)
_STAGE: Final = Histogram(
    "headrace_ledger_stage_seconds",
    "Time of one batch by stage: decode, look, decide, commit, publish",
    (*_OF, "stage"),
    buckets=SECONDS_BUCKETS,
)
_DELAY: Final = Histogram(
    "headrace_ledger_journal_to_events_seconds",
    "From a batch's commit to its events being durable",
    _OF,
    buckets=SECONDS_BUCKETS,
)
_LOOKS: Final = Counter(
    "headrace_ledger_share_reads_total",
    "Accounts whose foreign shares were read again before a refusal",
    _OF,
)
_STALENESS: Final = Histogram(
    "headrace_ledger_foreign_share_staleness_seconds",
    "At a batch's commit, the age of the oldest reading of foreign shares among the guarded"
    " accounts at home that it changed",
    _OF,
    buckets=(0.001, 0.01, 0.1, 1, 10, 60, 300, 1_800, 3_600, 21_600, 86_400),
)
_AGAIN: Final = Counter(
    "headrace_ledger_decided_again_total", "Batches decided again, by cause", (*_OF, "cause")
)
_FENCED: Final = Counter("headrace_ledger_fence_losses_total", "Fences lost", _OF)
_SESSIONS: Final = Counter(
    "headrace_ledger_sessions_total", "Times the fence was taken, first and after trouble", _OF
)
_FILLED: Final = Counter(
    "headrace_ledger_gap_filled_total", "Events rebuilt from the journal after a crash", _OF
)
_LAG: Final = Gauge("headrace_ledger_lag_records", "Offsets not yet decided", _OF)
_RUNNING: Final = Gauge("headrace_ledger_running", "1 while the partition decides commands", _OF)
_POSITION: Final = Gauge("headrace_ledger_position", "The journal's newest position", _OF)

STAGES: Final = ("decode", "look", "decide", "commit", "publish")
REASON_OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Meters:
    """One partition's children of the families above."""

    partition: str
    repeats: Counter
    poisoned: Counter
    batch: Histogram
    stages: Mapping[str, Histogram]
    delay: Histogram
    looks: Counter
    staleness: Histogram
    fenced: Counter
    sessions: Counter
    filled: Counter
    lag: Gauge
    running: Gauge
    position: Gauge

    def outcomes(self, kind: str, count: int) -> None:
        """Count outcomes of one type."""
        _OUTCOMES.labels(self.partition, kind).inc(count)

    def rejected(self, reason: str, count: int) -> None:
        """Count refusals for one reason."""
        _REJECTIONS.labels(self.partition, reason).inc(count)

    def again(self, cause: str) -> None:
        """Count a batch that was decided again."""
        _AGAIN.labels(self.partition, cause).inc()


@cache
def meters(partition: int) -> Meters:
    """Return the children of one partition."""
    label = str(partition)
    return Meters(
        label,
        _REPEATS.labels(label),
        _POISONED.labels(label),
        _BATCH.labels(label),
        {stage: _STAGE.labels(label, stage) for stage in STAGES},
        _DELAY.labels(label),
        _LOOKS.labels(label),
        _STALENESS.labels(label),
        _FENCED.labels(label),
        _SESSIONS.labels(label),
        _FILLED.labels(label),
        _LAG.labels(label),
        _RUNNING.labels(label),
        _POSITION.labels(label),
    )
