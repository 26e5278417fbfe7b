"""Payments and accounts as clients get them. Pure.

From the request that was written (what this gateway knows at once) or from the views' rows; both
give the same shape. Times are RFC 3339 in UTC with microseconds.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec.structs import replace

from gateways.kafka.reply import Reply, Step
from gateways.payments.times import timestamp

ACCEPTED: Final = "accepted"


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
    """A payment. `timeline` is left out of lists.

    Of a manual capture, `authorized_amount` was held until `expires_at`; `captured_amount` of it
    was settled so far. `refunded_amount` was paid back so far.
    """

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
    authorized_amount: int = 0
    captured_amount: int = 0
    refunded_amount: int = 0
    expires_at: str | None = None
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


class Frozen(msgspec.Struct, frozen=True):
    """Which side of an account is frozen: what may not leave, what may not come in."""

    debits: bool = False
    credits: bool = False


class Account(msgspec.Struct, frozen=True):
    """An account: `active`, `frozen` on a side, or `closed`. `version` counts its entries."""

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
    frozen: Frozen = Frozen()


class PaymentList(msgspec.Struct, frozen=True):
    """Newest first; `next_cursor` is null on the last page."""

    data: list[Payment]
    next_cursor: str | None


def payment(record: dict[str, Any], outcome: Reply | None) -> Payment:
    """Show the payment that a request asked for, with the outcome if there is one."""
    received = timestamp(record["received_at_us"])
    shown = Payment(
        id=record["resource_id"],
        status=ACCEPTED,
        amount=record["amount_minor"],
        currency=record["currency"],
        source=PartyOut(record["source_account"]),
        destination=PartyOut(record["destination_account"]),
        capture=record["capture"],
        method=record.get("method", "internal"),
        description=record["description"],
        reference=record["reference"],
        metadata=record["metadata"],
        reason=None,
        idempotency_key=record["idempotency_key"],
        created_at=received,
        updated_at=received,
        timeline=[TimelineStep(received, ACCEPTED)],
    )
    if outcome is None:
        return shown
    return replace(progressed(shown, outcome), reason=reason_of(outcome.reason, outcome.detail))


def progressed(shown: Payment, outcome: Reply) -> Payment:
    """Show a payment as an outcome tells of it; why it came so stays as it was."""
    held = any(step.event == "authorized" for step in outcome.timeline)
    expires_at_us = outcome.expires_at_us
    return replace(
        shown,
        status=outcome.status,
        updated_at=timestamp(outcome.occurred_at_us),
        authorized_amount=shown.amount if held else 0,
        captured_amount=outcome.captured_minor or 0,
        refunded_amount=outcome.refunded_minor or 0,
        expires_at=timestamp(expires_at_us) if expires_at_us is not None else None,
        timeline=[_step(step, outcome) for step in outcome.timeline],
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


def changed(shown: Account, kind: str, outcome: Reply) -> Account:
    """Show an account after a freeze, an unfreeze or a close that was applied."""
    if kind == "account.close":
        return replace(shown, status="closed")
    if outcome.debits_frozen is None or outcome.credits_frozen is None:
        return shown  # a repeat: what the account is now, the view says
    frozen = Frozen(outcome.debits_frozen, outcome.credits_frozen)
    return replace(shown, status=status_of(frozen), frozen=frozen)


def status_of(frozen: Frozen) -> str:
    """Return the status of an account that is not closed."""
    return "frozen" if frozen.debits or frozen.credits else "active"


def reason_of(code: str | None, detail: str | None = None) -> Reason | None:
    """Return the reason, if there is one."""
    return Reason(code, detail) if code is not None else None


def _step(step: Step, outcome: Reply) -> TimelineStep:
    """Show a step; the outcome's own reason has a detail."""
    detail = outcome.detail if step.reason == outcome.reason else None
    return TimelineStep(timestamp(step.at_us), step.event, reason_of(step.reason, detail))
