"""What the engine shows of itself, per task and partition; children are bound per partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

from schemas.metrics import COUNT_BUCKETS, SECONDS_BUCKETS

_OF: Final = ("task", "partition")
_BY_TOPIC: Final = ("task", "partition", "topic")

_RECORDS: Final = Counter("headrace_streams_records_total", "Records handled", _BY_TOPIC)
_EMITTED: Final = Counter("headrace_streams_emitted_total", "Records written to outputs", _OF)
_CHANGES: Final = Counter("headrace_streams_changes_total", "State changes committed", _OF)
_DEAD: Final = Counter("headrace_streams_dead_letters_total", "Records dead-lettered", _OF)
_FIRED: Final = Counter("headrace_streams_timers_fired_total", "Timers that fired", _OF)
_BATCH: Final = Histogram(
    "headrace_streams_batch_records", "Records of one batch", _OF, buckets=COUNT_BUCKETS
)
_STAGE: Final = Histogram(
    "headrace_streams_stage_seconds",
    "Time of one batch by stage: read, handle, send, commit, store",
    (*_OF, "stage"),
    buckets=SECONDS_BUCKETS,
)
_TRANSACTION: Final = Histogram(
    "headrace_streams_transaction_seconds",
    "From begin to committed",
    _OF,
    buckets=SECONDS_BUCKETS,
)
_ABORTS: Final = Counter(
    "headrace_streams_aborts_total", "Batches given up, by reason", (*_OF, "reason")
)
_LAG: Final = Gauge("headrace_streams_lag_records", "Offsets not yet handled", _BY_TOPIC)
_LAG_S: Final = Gauge(
    "headrace_streams_lag_seconds", "Age of the oldest record that waits here", _OF
)
_RUNNING: Final = Gauge("headrace_streams_running", "1 while the partition handles records", _OF)
_RESTORE_S: Final = Gauge("headrace_streams_restore_seconds", "How long the last restore took", _OF)
_RESTORED: Final = Gauge(
    "headrace_streams_restore_records", "Changelog records applied by the last restore", _OF
)
_PROGRESS: Final = Gauge("headrace_streams_restore_ratio", "How far the restore is, 0 to 1", _OF)
_STATE_BYTES: Final = Gauge("headrace_streams_state_bytes", "Size of the local state", _OF)
_STATE_ENTRIES: Final = Gauge("headrace_streams_state_entries", "About how many keys it has", _OF)

STAGES: Final = ("read", "handle", "send", "commit", "store")
REASONS: Final = ("unavailable", "fenced", "refused")


@dataclass(frozen=True, slots=True)
class BatchFigures:
    """One committed batch: records per topic, seconds per stage, and counts."""

    records: dict[str, int]
    stages: dict[str, float]
    emitted: int
    changes: int
    dead: int
    fired: int


@dataclass(frozen=True, slots=True)
class PartitionMetrics:
    """One partition's children of the families above."""

    records: dict[str, Any]
    lag: dict[str, Any]
    stages: dict[str, Any]
    aborts: dict[str, Any]
    emitted: Any
    changes: Any
    dead: Any
    fired: Any
    batch: Any
    transaction: Any
    lag_s: Any
    running: Any
    restore_s: Any
    restored: Any
    progress: Any
    state_bytes: Any
    state_entries: Any

    def observe(self, batch: BatchFigures) -> None:
        """Count one committed batch."""
        for topic, records in batch.records.items():
            self.records[topic].inc(records)
        for stage, seconds in batch.stages.items():
            self.stages[stage].observe(seconds)
        self.batch.observe(sum(batch.records.values()))
        self.transaction.observe(batch.stages["send"] + batch.stages["commit"])
        self.emitted.inc(batch.emitted)
        self.changes.inc(batch.changes)
        self.dead.inc(batch.dead)
        self.fired.inc(batch.fired)

    @classmethod
    def of(cls, task: str, partition: int, topics: tuple[str, ...]) -> PartitionMetrics:
        """Bind the children."""
        labels = (task, str(partition))
        return cls(
            records={topic: _RECORDS.labels(*labels, topic) for topic in topics},
            lag={topic: _LAG.labels(*labels, topic) for topic in topics},
            stages={stage: _STAGE.labels(*labels, stage) for stage in STAGES},
            aborts={reason: _ABORTS.labels(*labels, reason) for reason in REASONS},
            emitted=_EMITTED.labels(*labels),
            changes=_CHANGES.labels(*labels),
            dead=_DEAD.labels(*labels),
            fired=_FIRED.labels(*labels),
            batch=_BATCH.labels(*labels),
            transaction=_TRANSACTION.labels(*labels),
            lag_s=_LAG_S.labels(*labels),
            running=_RUNNING.labels(*labels),
            restore_s=_RESTORE_S.labels(*labels),
            restored=_RESTORED.labels(*labels),
            progress=_PROGRESS.labels(*labels),
            state_bytes=_STATE_BYTES.labels(*labels),
            state_entries=_STATE_ENTRIES.labels(*labels),
        )
