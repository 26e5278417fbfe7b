"""What is held on an account: the list's parameters and the cursor that continues it. Pure.

Order: placed, newest first, then id. Only what is still held is listed, so all pages together add
up to what the account's balances say is held.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from gateways.payments.lists import Place
from gateways.payments.parameters import (
    LIMIT_DEFAULT,
    limit_of,
    open_place,
    pairs,
    seal_place,
)
from schemas.ids import is_payment_id, is_transfer_id

PARAMETERS: Final = ("limit", "cursor")


@dataclass(frozen=True, slots=True)
class HoldQuery:
    """Which open holds of one account."""

    account_id: str
    limit: int = LIMIT_DEFAULT
    after: Place | None = None


def parse(account_id: str, query: str) -> HoldQuery:
    """Read a query string; Refused (400) names the parameter that is wrong."""
    given = pairs(query, PARAMETERS)
    wanted = HoldQuery(account_id, limit_of(given))
    if "cursor" not in given:
        return wanted
    return replace(wanted, after=open_place(given["cursor"], _filters(wanted), _is_hold_id))


def encode(place: Place, query: HoldQuery) -> str:
    """Return the cursor that continues `query` after `place`."""
    return seal_place(place, _filters(query))


def _filters(query: HoldQuery) -> tuple[object, ...]:
    return ("holds", query.account_id)


def _is_hold_id(text: str) -> bool:
    """A hold is named like the payment or transfer that it was placed for."""
    return is_payment_id(text) or is_transfer_id(text)
