"""Counts and logs what a batch came to: every refusal at debug, a sample of all at info."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ledger_writer.event import DETAILS
from ledger_writer.metrics import REASON_OTHER, Meters
from schemas import logs

if TYPE_CHECKING:
    from ledger_writer.intake import Intake
    from ledger_writer.model import Decision, Row


def report(meters: Meters, decision: Decision, intake: Intake, log_sample: int) -> None:
    """Tell of one committed batch; labels stay bounded whatever reasons commands carry."""
    for kind, count in Counter(row.type for row in decision.rows).items():
        meters.outcomes(kind, count)
    refused = [row for row in decision.rows if row.reason is not None]
    for reason, count in Counter(_label(row) for row in refused).items():
        meters.rejected(reason, count)
    meters.repeats.inc(sum(row.repeats is not None for row in decision.rows))
    logger = logs.get()
    for row in refused:
        logger.debug("refused", **_facts(row), reason=row.reason)
    for row in decision.rows:
        if logs.sampled(row.identity, log_sample):
            logger.info("decided", **_facts(row), type=row.type, reason=row.reason)
    for record, reason in intake.dead:
        meters.poisoned.inc()
        logger.warning("poisoned", offset=record.offset, detail=reason)


def _label(row: Row) -> str:
    reason = row.reason or REASON_OTHER
    return reason if reason in DETAILS or reason == "velocity_limit" else REASON_OTHER


def _facts(row: Row) -> dict[str, object]:
    return {
        "payment_id": row.saga_id,
        "partition": row.partition,
        "position": row.position,
        "command_offset": row.command_offset,
    }
