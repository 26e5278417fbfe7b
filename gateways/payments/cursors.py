"""List queries: their parameters, and the opaque cursor that continues them. Pure.

Order: created_at, newest first, then id. A cursor names the last payment shown, so pages neither
skip nor repeat one while new payments arrive. It is bound to the filters it was made with.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Final

from gateways.payments.parameters import (
    LIMIT_DEFAULT,
    bad_cursor,
    limit_of,
    open_cursor,
    pairs,
    seal_cursor,
    time_of,
)
from gateways.problems import bad_query
from schemas.ids import is_account_id, is_payment_id

STATUSES: Final = (
    "accepted",
    "authorized",
    "settled",
    "rejected",
    "voided",
    "expired",
    "refunded",
    "partially_refunded",
    "parked",
)
PARAMETERS: Final = ("status", "account", "idempotency_key", "from", "to", "limit", "cursor")


@dataclass(frozen=True, slots=True)
class Place:
    """The last payment of a page."""

    created_at_us: int
    payment_id: str


@dataclass(frozen=True, slots=True)
class PaymentQuery:
    """Which payments of one tenant; every filter that is set holds, from_us <= t < to_us."""

    tenant: str
    status: str | None = None
    account: str | None = None
    idempotency_key: str | None = None
    from_us: int | None = None
    to_us: int | None = None
    limit: int = LIMIT_DEFAULT
    after: Place | None = None


def parse(tenant: str, query: str) -> PaymentQuery:
    """Read a query string; Refused (400) names the parameter that is wrong."""
    given = pairs(query, PARAMETERS)
    status, account = given.get("status"), given.get("account")
    if status is not None and status not in STATUSES:
        raise bad_query("status", "value_unknown", f"must be one of {', '.join(STATUSES)}")
    if account is not None and not is_account_id(account):
        raise bad_query("account", "format_invalid", "is not an account id")
    limit, from_us, to_us = limit_of(given), time_of("from", given), time_of("to", given)
    key = given.get("idempotency_key")
    wanted = PaymentQuery(tenant, status, account, key, from_us, to_us, limit)
    if "cursor" not in given:
        return wanted
    return changed(wanted, after=_decode(given["cursor"], wanted))


def encode(place: Place, query: PaymentQuery) -> str:
    """Return the cursor that continues `query` after `place`."""
    return seal_cursor(f"{place.created_at_us}|{place.payment_id}", _filters(query))


def _decode(cursor: str, query: PaymentQuery) -> Place:
    at, _, payment_id = open_cursor(cursor, _filters(query)).partition("|")
    if not (at.isdigit() and len(at) <= 18 and is_payment_id(payment_id)):
        raise bad_cursor("is not a cursor of ours")
    return Place(int(at), payment_id)


def _filters(query: PaymentQuery) -> tuple[object, ...]:
    return (
        query.tenant,
        query.status,
        query.account,
        query.idempotency_key,
        query.from_us,
        query.to_us,
    )
