"""List queries: their parameters, and the opaque cursor that continues them. Pure.

Order: created_at, newest first, then id. A cursor names the last payment shown, so pages neither
skip nor repeat one while new payments arrive. It is bound to the filters it was made with.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl

from gateways.problems import Refused, bad_query
from schemas.ids import is_account_id, is_payment_id

LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100
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
_VERSION: Final = b"1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
    given = _pairs(query)
    status, account = given.get("status"), given.get("account")
    if status is not None and status not in STATUSES:
        raise bad_query("status", "value_unknown", f"must be one of {', '.join(STATUSES)}")
    if account is not None and not is_account_id(account):
        raise bad_query("account", "format_invalid", "is not an account id")
    limit = given.get("limit", str(LIMIT_DEFAULT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= LIMIT_MAX):
        raise bad_query("limit", "out_of_range", f"must be an integer in 1..{LIMIT_MAX}")
    from_us, to_us = _time("from", given), _time("to", given)
    key = given.get("idempotency_key")
    wanted = PaymentQuery(tenant, status, account, key, from_us, to_us, int(limit))
    if "cursor" not in given:
        return wanted
    after = _decode(given["cursor"], wanted)
    return PaymentQuery(tenant, status, account, key, from_us, to_us, int(limit), after)


def encode(place: Place, query: PaymentQuery) -> str:
    """Return the cursor that continues `query` after `place`."""
    text = f"{place.created_at_us}|{place.payment_id}".encode()
    return base64.urlsafe_b64encode(_VERSION + _seal(query) + text).decode().rstrip("=")


def _decode(cursor: str, query: PaymentQuery) -> Place:
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        version, seal, text = data[:1], data[1:9], data[9:].decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise _bad_cursor("is not a cursor of ours") from error
    at, _, payment_id = text.partition("|")
    if version != _VERSION or not (at.isdigit() and len(at) <= 18 and is_payment_id(payment_id)):
        raise _bad_cursor("is not a cursor of ours")
    if seal != _seal(query):
        raise _bad_cursor("belongs to a list with other filters")
    return Place(int(at), payment_id)


def _seal(query: PaymentQuery) -> bytes:
    filters = (
        query.tenant,
        query.status,
        query.account,
        query.idempotency_key,
        query.from_us,
        query.to_us,
    )
    return hashlib.sha256(repr(filters).encode()).digest()[:8]


def _pairs(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=16
        )
    except ValueError as error:
        raise Refused("query_invalid", f"The query string can't be read: {error}.") from error
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in PARAMETERS:
            raise bad_query(name, "parameter_unknown", f"known are {', '.join(PARAMETERS)}")
        if name in given:
            raise bad_query(name, "parameter_repeated", "was given twice")
        given[name] = value
    return given


def _time(name: str, given: dict[str, str]) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        detail = "must be an RFC 3339 time, such as 2026-01-31T12:00:00Z"
        raise bad_query(name, "format_invalid", detail)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _bad_cursor(detail: str) -> Refused:
    return bad_query("cursor", "cursor_invalid", detail)
