"""What the read model says of payments and accounts: SQL and rows.

A list reads along one index, newest first, whatever it is filtered by: by what a client has said of
a payment along its tags, by account along one index a side, else along time. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateways.payments import lists
from gateways.payments.cursors import PaymentQuery
from gateways.payments.lists import Filters, Place, Row, Shape
from gateways.payments.present import (
    Account,
    Balances,
    Frozen,
    LimitsOut,
    PartyOut,
    Payment,
    TimelineStep,
    reason_of,
)
from gateways.payments.times import timestamp

_decode_timeline: Final = msgspec.json.Decoder(list[tuple[int, str, str | None, str | None]]).decode


@dataclass(frozen=True, slots=True)
class ShownPayment:
    """A payment as the view has it, with its version and its place in lists."""

    payment: Payment
    version: int
    place: Place


@dataclass(frozen=True, slots=True)
class ShownAccount:
    """An account as the view has it, with the version of each share of its balance.

    `changed_at_us`: when its flags were changed last, 0 if never.
    """

    account: Account
    shares: dict[int, int]
    changed_at_us: int = 0


_PAYMENT_COLUMNS: Final = """
payment_id, idempotency_key, status, version, reason, detail, amount_minor, currency,
source_account, destination_account, method, capture, description, reference, metadata::text,
created_at_us, updated_at_us, authorized_minor, captured_minor, refunded_minor, expires_at_us"""

PAYMENT: Final = f"""
select {_PAYMENT_COLUMNS}, (
    select jsonb_agg(jsonb_build_array(at_us, event, reason, detail) order by t.version)::text
    from payment_timeline t where t.payment_id = p.payment_id
) as timeline
from payments p where payment_id = $1 and tenant = $2"""  # noqa: S608 (constants only)

_LISTED: Final = Shape(_PAYMENT_COLUMNS, "payments", "payment_id", "created_at_us")

ACCOUNT: Final = """
select a.account_id, a.kind, a.currency, a.name, a.status, a.min_balance_minor, a.max_balance_minor,
    a.metadata::text, a.created_at_us, a.debits_frozen, a.credits_frozen, a.changed_at_us,
    s.shares, s.versions, s.posted, s.held
from accounts a cross join lateral (
    select coalesce(array_agg(share), '{}') as shares,
        coalesce(array_agg(version), '{}') as versions,
        coalesce(sum(posted_minor), 0)::bigint as posted,
        coalesce(sum(held_minor), 0)::bigint as held
    from account_shares where account_id = a.account_id
) s
where a.account_id = $1 and a.tenant = $2"""


def list_statement(query: PaymentQuery) -> tuple[str, list[Any]]:
    """Return the statement and arguments of one page of payments."""
    filters = Filters()
    filters.said("payment", query.reference, query.metadata)
    if query.status is not None:
        filters.conditions.append(f"t.status = {filters.bound(query.status)}")
    if query.idempotency_key is not None:
        filters.conditions.append(f"t.idempotency_key = {filters.bound(query.idempotency_key)}")
    if query.account is not None:
        account = filters.bound(query.account)
        filters.arms = [f"t.source_account = {account}", f"t.destination_account = {account}"]
    return lists.statement(_LISTED, query, filters)


def payment_of(row: Row, timeline: str | None) -> ShownPayment:
    """Read a payment; without a timeline where it was not read."""
    steps: list[TimelineStep] | msgspec.UnsetType = msgspec.UNSET
    if timeline is not None:
        steps = [
            TimelineStep(timestamp(at_us), event, reason_of(reason, detail))
            for at_us, event, reason, detail in _decode_timeline(timeline)
        ]
    shown = Payment(
        id=row["payment_id"],
        status=row["status"],
        amount=row["amount_minor"],
        currency=row["currency"],
        source=PartyOut(row["source_account"]),
        destination=PartyOut(row["destination_account"]),
        capture=row["capture"],
        method=row["method"],
        description=row["description"],
        reference=row["reference"],
        metadata=_metadata(row["metadata"]),
        reason=reason_of(row["reason"], row["detail"]),
        idempotency_key=row["idempotency_key"],
        created_at=timestamp(row["created_at_us"]),
        updated_at=timestamp(row["updated_at_us"]),
        authorized_amount=row["authorized_minor"] or 0,
        captured_amount=row["captured_minor"] or 0,
        refunded_amount=row["refunded_minor"] or 0,
        expires_at=timestamp(row["expires_at_us"]) if row["expires_at_us"] is not None else None,
        timeline=steps,
    )
    return ShownPayment(shown, row["version"], Place(row["created_at_us"], row["payment_id"]))


def account_of(row: Row) -> ShownAccount:
    """Read an account."""
    versions = dict(zip(row["shares"], row["versions"], strict=True))
    posted, held = row["posted"], row["held"]
    shown = Account(
        id=row["account_id"],
        currency=row["currency"],
        kind=row["kind"],
        status=row["status"],
        name=row["name"],
        limits=LimitsOut(row["min_balance_minor"], row["max_balance_minor"]),
        balances=Balances(posted, held, posted - held),
        version=sum(versions.values()),
        metadata=_metadata(row["metadata"]),
        created_at=timestamp(row["created_at_us"]),
        frozen=Frozen(row["debits_frozen"], row["credits_frozen"]),
    )
    return ShownAccount(shown, versions, row["changed_at_us"])


def _metadata(text: str | None) -> dict[str, str]:
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}
