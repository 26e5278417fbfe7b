"""Payment events as rows: the values of fixed fields, in order, without a dict of them. Pure.

Two are written of every payment, so what each costs counts. Like `records`, all derives from the
saga, the record that moved it and log time.
"""

from __future__ import annotations

from typing import Any, Final

from schemas.ids import identity_of
from streams.payments.saga import STATUS
from streams.payments.state import Saga

EVENT: Final = (
    "type",
    "event_id",
    "slot",
    "status",
    "occurred_at_us",
    "identity",
    "resource_id",
    "tenant",
    "idempotency_key",
    "body_hash",
    "home_account",
    "request_id",
    "version",
    "received_at_us",
    "reason",
    "detail",
    "method",
    "amount_minor",
    "currency",
    "source_account",
    "destination_account",
    "capture",
    "authorized_minor",
    "captured_minor",
    "refunded_minor",
    "expires_at_us",
    "effective_at_us",
)
"""The fields whose values `event` gives, in its order; what only some kinds carry is told apart."""


def event(of: Saga, kind: str, event_id: str, slot: int, at_us: int) -> tuple[Any, ...]:
    """Build a payment event as a row of the fields `EVENT`; `slot` is its home account's."""
    return (
        kind,
        event_id,
        slot,
        STATUS[of.state],
        at_us,
        identity_of(of.resource_id),
        of.resource_id,
        of.tenant,
        of.idempotency_key,
        of.body_hash,
        of.home_account,
        of.request_id,
        of.version,
        of.received_at_us,
        of.reason,
        of.detail,
        of.method,
        of.amount_minor,
        of.currency,
        of.source_account,
        of.destination_account,
        of.capture,
        of.authorized_minor,
        of.captured_minor,
        of.refunded_minor,
        of.expires_at_us,
        of.effective_at_us,
    )
