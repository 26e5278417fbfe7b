"""Transfer lists: their parameters and the cursor that continues a page. Pure.

Order: booked, newest first, then id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from schemas.ids import is_account_id, is_transfer_id

PARAMETERS: Final = ("reference", METADATA, "account", "from", "to", "limit", "cursor")


@dataclass(frozen=True, slots=True)
class TransferQuery:
    """Which transfers of one tenant; every filter that is set holds, from_us <= booked < to_us."""

    tenant: str
    reference: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    account: str | None = None
    from_us: int | None = None
    to_us: int | None = None
    limit: int = LIMIT_DEFAULT
    after: Place | None = None


def parse(tenant: str, query: str) -> TransferQuery:
    """Read a query string; Refused (400) names the parameter that is wrong."""
    given = pairs(query, PARAMETERS)
    account = given.get("account")
    if account is not None and not is_account_id(account):
        raise bad_query("account", "format_invalid", "is not an account id")
    reference, (from_us, to_us) = text_of("reference", given, REFERENCE_MAX), range_of(given)
    limit, metadata = limit_of(given), metadata_of(given)
    wanted = TransferQuery(tenant, reference, metadata, account, from_us, to_us, limit)
    if "cursor" not in given:
        return wanted
    return replace(wanted, after=open_place(given["cursor"], _filters(wanted), is_transfer_id))


def encode(place: Place, query: TransferQuery) -> str:
    """Return the cursor that continues `query` after `place`."""
    return seal_place(place, _filters(query))


def _filters(query: TransferQuery) -> tuple[object, ...]:
    found = (query.reference, query.metadata, query.account, query.from_us, query.to_us)
    return ("transfers", query.tenant, *found)
