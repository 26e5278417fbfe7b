"""Statements and balances at a time, as clients get them, and how a balance runs. Pure.

An account's balance is the sum of its shares, each kept by one partition of the ledger. A statement
runs over the order of all shares: by booked time, then share, then version. Walking it backwards,
each entry gives way to what its share was before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from gateways.payments.present import Balances
from gateways.payments.times import timestamp


@dataclass(frozen=True, slots=True, order=True)
class EntryPlace:
    """Where an entry stands in its account's statement."""

    booked_at_us: int
    share: int
    version: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A share's balances."""

    posted_minor: int = 0
    held_minor: int = 0


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry as the view has it, with its share's balances before and after it."""

    place: EntryPlace
    event: str
    transfer_id: str | None
    amount_minor: int
    currency: str
    before: Standing
    after: Standing
    effective_at_us: int


class EntryOut(msgspec.Struct, frozen=True):
    """One change of an account: `balances` are the whole account's after it, in minor units.

    `amount` is above zero for a credit, below for a debit, 0 where only what is held changes.
    `version` counts the changes of one share of the account.
    """

    event: str
    transfer: str | None
    amount: int
    currency: str
    balances: Balances
    share: int
    version: int
    booked_at: str
    effective_at: str


class EntryList(msgspec.Struct, frozen=True):
    """Newest first; `next_cursor` is null on the last page."""

    data: list[EntryOut]
    next_cursor: str | None


class BalanceAt(msgspec.Struct, frozen=True):
    """An account's balances at a time; `basis` says which time of its entries counts."""

    account: str
    currency: str
    at: str
    basis: str
    balances: Balances


def balances(standings: Iterable[Standing]) -> Balances:
    """Sum shares up."""
    posted = held = 0
    for standing in standings:
        posted += standing.posted_minor
        held += standing.held_minor
    return Balances(posted, held, posted - held)


def statement(rows: Iterable[EntryRow], shares: Mapping[int, Standing]) -> list[EntryOut]:
    """Show entries, newest first; `shares` stand as they are right after the first of them."""
    now, shown = dict(shares), []
    for row in rows:
        assert now.get(row.place.share) == row.after, "the shares are those of another moment"
        shown.append(
            EntryOut(
                event=row.event,
                transfer=row.transfer_id,
                amount=row.amount_minor,
                currency=row.currency,
                balances=balances(now.values()),
                share=row.place.share,
                version=row.place.version,
                booked_at=timestamp(row.place.booked_at_us),
                effective_at=timestamp(row.effective_at_us),
            )
        )
        now[row.place.share] = row.before
    return shown
