"""Statement and balance queries: their parameters and the cursor that continues a page. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from gateways.payments.parameters import (
    LIMIT_DEFAULT,
    bad_cursor,
    limit_of,
    open_cursor,
    pairs,
    range_of,
    seal_cursor,
    time_of,
)
from gateways.payments.present_entries import EntryPlace
from gateways.problems import bad_query

Basis = Literal["booked", "effective"]

STATEMENT_PARAMETERS: Final = ("from", "to", "limit", "cursor")
BALANCE_PARAMETERS: Final = ("at", "basis")
BASES: Final[tuple[Basis, ...]] = ("booked", "effective")
_LAST: Final = 2**62
_DIGITS_MAX: Final = 18


@dataclass(frozen=True, slots=True)
class EntryQuery:
    """Which entries of one account: from_us <= booked < to_us, and before `after`."""

    account_id: str
    from_us: int | None = None
    to_us: int | None = None
    limit: int = LIMIT_DEFAULT
    after: EntryPlace | None = None

    @property
    def end(self) -> EntryPlace:
        """Every entry wanted stands before this place."""
        end = EntryPlace(_LAST, 0, 0)
        if self.to_us is not None:
            end = EntryPlace(self.to_us, -1, -1)
        return min(end, self.after) if self.after is not None else end


@dataclass(frozen=True, slots=True)
class BalanceQuery:
    """An account's balances as they were when everything up to `at_us` had happened."""

    account_id: str
    at_us: int
    basis: Basis = "booked"


def parse_statement(account_id: str, query: str) -> EntryQuery:
    """Read a query string; Refused (400) names the parameter that is wrong."""
    given = pairs(query, STATEMENT_PARAMETERS)
    limit, (from_us, to_us) = limit_of(given), range_of(given)
    wanted = EntryQuery(account_id, from_us, to_us, limit)
    if "cursor" not in given:
        return wanted
    return replace(wanted, after=_place(open_cursor(given["cursor"], _filters(wanted))))


def parse_balance(account_id: str, query: str, now_us: int) -> BalanceQuery:
    """Read a query string; Refused (400) names the parameter that is wrong."""
    given = pairs(query, BALANCE_PARAMETERS)
    at_us = time_of("at", given)
    basis = next((known for known in BASES if known == given.get("basis", "booked")), None)
    if basis is None:
        raise bad_query("basis", "value_unknown", f"must be one of {', '.join(BASES)}")
    return BalanceQuery(account_id, now_us if at_us is None else at_us, basis)


def encode(place: EntryPlace, query: EntryQuery) -> str:
    """Return the cursor that continues `query` after `place`."""
    text = f"{place.booked_at_us}|{place.share}|{place.version}"
    return seal_cursor(text, _filters(query))


def _place(text: str) -> EntryPlace:
    parts = text.split("|")
    if len(parts) != 3 or not all(p.isdigit() and len(p) <= _DIGITS_MAX for p in parts):
        raise bad_cursor("is not a cursor of ours")
    booked_at_us, share, version = map(int, parts)
    return EntryPlace(booked_at_us, share, version)


def _filters(query: EntryQuery) -> tuple[object, ...]:
    return ("entries", query.account_id, query.from_us, query.to_us)
