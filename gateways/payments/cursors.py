"""List queries: their parameters, and the opaque cursor that continues them. Pure.

Order: created_at, newest first, then id. A cursor names the last payment shown, so pages neither
skip nor repeat one while new payments arrive. It is bound to the filters it was made with.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Final

from gateways.payments.lists import Place
from gateways.payments.parameters import (
    LIMIT_DEFAULT,
    METADATA,
    REFERENCE_MAX,
    limit_of,
    metadata_of,
    open_place,
    pairs,
    range_of,
    seal_place,
    text_of,
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
PARAMETERS: Final = (
    "status",
    "account",
    "idempotency_key",
    "reference",
    METADATA,
    "from",
    "to",
    "limit",
    "cursor",
)


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
    reference: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()


def parse(tenant: str, query: str) -> PaymentQuery:
    """Read a query string; Refused (400) names the parameter that is wrong."""
    given = pairs(query, PARAMETERS)
    status, account = given.get("status"), given.get("account")
    if status is not None and status not in STATUSES:
        raise bad_query("status", "value_unknown", f"must be one of {', '.join(STATUSES)}")
    if account is not None and not is_account_id(account):
        raise bad_query("account", "format_invalid", "is not an account id")
    limit, (from_us, to_us) = limit_of(given), range_of(given)
    wanted = PaymentQuery(
        tenant,
        status,
        account,
        given.get("idempotency_key"),
        from_us,
        to_us,
        limit,
        reference=text_of("reference", given, REFERENCE_MAX),
        metadata=metadata_of(given),
    )
    if "cursor" not in given:
        return wanted
    return changed(wanted, after=open_place(given["cursor"], _filters(wanted), is_payment_id))


def encode(place: Place, query: PaymentQuery) -> str:
    """Return the cursor that continues `query` after `place`."""
    return seal_place(place, _filters(query))


def _filters(query: PaymentQuery) -> tuple[object, ...]:
    return (
        query.tenant,
        query.status,
        query.account,
        query.idempotency_key,
        query.from_us,
        query.to_us,
        query.reference,
        query.metadata,
    )
