"""Payments and accounts as clients get them. Pure.

From the request that was written (what this gateway knows at once) or from the views' rows; both
give the same shape. Times are RFC 3339 in UTC with microseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec

from gateways.kafka.reply import Reply, Step

ACCEPTED: Final = "accepted"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class PartyOut(msgspec.Struct, frozen=True):
    """One side of a payment."""

    account: str


class Reason(msgspec.Struct, frozen=True):
    """Why it came so; `code` is stable snake_case."""

    code: str
    detail: str | None = None


class TimelineStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happened, when."""

    at: str
    event: str
    reason: Reason | None = None


class Payment(msgspec.Struct, frozen=True):
    """A payment. `timeline` is left out of lists."""

    id: str
    status: str
    amount: int
    currency: str
    source: PartyOut
    destination: PartyOut
    capture: str
    method: str
    description: str | None
    reference: str | None
    metadata: dict[str, str]
    reason: Reason | None
    idempotency_key: str
    created_at: str
    updated_at: str
    timeline: list[TimelineStep] | msgspec.UnsetType = msgspec.UNSET


class Balances(msgspec.Struct, frozen=True):
    """Minor units; available = posted - held."""

    posted: int
    held: int
    available: int


class LimitsOut(msgspec.Struct, frozen=True):
    """Bounds of the balance, in minor units; null: the kind's own."""

    min_balance: int | None
    max_balance: int | None


class Account(msgspec.Struct, frozen=True):
    """An account. `version` counts the changes of its balance."""

    id: str
    currency: str
    kind: str
    status: str
    name: str | None
    limits: LimitsOut
    balances: Balances
    version: int
    metadata: dict[str, str]
    created_at: str


class PaymentList(msgspec.Struct, frozen=True):
    """Newest first; `next_cursor` is null on the last page."""

    payments: list[Payment]
    next_cursor: str | None


def timestamp(at_us: int) -> str:
    """Show microseconds since the epoch as RFC 3339."""
    second, us = divmod(at_us, 1_000_000)
    return f"{_second(second)}.{us:06d}Z"


def payment(record: dict[str, Any], outcome: Reply | None) -> Payment:
    """Show the payment that a request asked for, with the outcome if there is one."""
    received = timestamp(record["received_at_us"])
    status, reason, updated = ACCEPTED, None, received
    timeline = [TimelineStep(received, ACCEPTED)]
    if outcome is not None:
        status, updated = outcome.status, timestamp(outcome.occurred_at_us)
        reason = reason_of(outcome.reason, outcome.detail)
        timeline = [_step(step, outcome) for step in outcome.timeline]
    return Payment(
        id=record["resource_id"],
        status=status,
        amount=record["amount_minor"],
        currency=record["currency"],
        source=PartyOut(record["source_account"]),
        destination=PartyOut(record["destination_account"]),
        capture=record["capture"],
        method=record.get("method", "internal"),
        description=record["description"],
        reference=record["reference"],
        metadata=record["metadata"],
        reason=reason,
        idempotency_key=record["idempotency_key"],
        created_at=received,
        updated_at=updated,
        timeline=timeline,
    )


def account(record: dict[str, Any], outcome: Reply | None) -> Account:
    """Show the account that a request asked for: nothing has moved on it yet."""
    return Account(
        id=record["resource_id"],
        currency=record["currency"],
        kind=record["account_kind"],
        status=outcome.status if outcome else ACCEPTED,
        name=record.get("account_name"),
        limits=LimitsOut(record.get("min_balance_minor"), record.get("max_balance_minor")),
        balances=Balances(0, 0, 0),
        version=0,
        metadata=record["metadata"],
        created_at=timestamp(record["received_at_us"]),
    )


def reason_of(code: str | None, detail: str | None = None) -> Reason | None:
    """Return the reason, if there is one."""
    return Reason(code, detail) if code is not None else None


def _step(step: Step, outcome: Reply) -> TimelineStep:
    """Show a step; the outcome's own reason has a detail."""
    detail = outcome.detail if step.reason == outcome.reason else None
    return TimelineStep(timestamp(step.at_us), step.event, reason_of(step.reason, detail))


@lru_cache(maxsize=4_096)
def _second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")
