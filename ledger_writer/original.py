"""What a reversal pays back: the row that it began with, and the movements that it made. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ledger_writer.accounts import home_of
from ledger_writer.linked import link_id
from ledger_writer.model import ARCHIVED, HOLD_PLACED, POSTED, PREPARED, Leg
from ledger_writer.operations import COMMITTED, DEBIT, LegPlace
from ledger_writer.outcome import Refusal
from schemas.ids import payback_home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger_writer.linked_books import LinkedBooks
    from ledger_writer.model import Command, Row


class Original(msgspec.Struct, frozen=True):
    """What is paid back: its row, and the movements that it made so far."""

    row: Row
    legs: Sequence[Leg]

    def place(self, leg: int) -> LegPlace:
        """Name a leg as the totals of reversals do."""
        return self.row.partition, self.row.position, leg

    def owner(self, leg: int) -> str:
        """Return an account at the home of the partition that owns a leg."""
        return payback_home([(each.source, each.destination) for each in self.legs], leg)

    def is_owned(self, leg: int, books: LinkedBooks) -> bool:
        """Tell whether a leg's owner is the partition that decides."""
        return home_of(self.owner(leg), books.partitions) == books.partition


def find(books: LinkedBooks, command: Command) -> Original | Refusal:
    """Return what a command pays back, or why there is nothing."""
    assert command.reversal is not None
    original_id = command.reversal.original_id
    row = books.original(original_id)
    if row is not None and row.type == ARCHIVED:
        return Refusal("original_archived")
    if row is None or (row.tenant, row.transfer_id) != (command.tenant, original_id):
        return Refusal("original_not_found")
    legs = _moved(books, row)
    return Original(row, legs) if legs else Refusal("original_not_found", command.reversal.leg)


def _moved(books: LinkedBooks, original: Row) -> Sequence[Leg]:
    """Return the movements that the original made so far; of a hold: what was captured of it."""
    if original.type == HOLD_PLACED:
        hold = books.hold(original.extras()["hold"]["hold_id"])
        if hold is None or not hold.captured_minor:
            return ()
        return (Leg(hold.source, hold.destination, hold.captured_minor, hold.currency),)
    if original.type == PREPARED:
        return _committed(books, original)
    if original.type != POSTED:
        return ()
    sides = original.entries
    return [
        Leg(debit.account_id, credit.account_id, credit.amount_minor, credit.currency)
        for debit, credit in zip(sides[::2], sides[1::2], strict=True)
    ]


def _committed(books: LinkedBooks, original: Row) -> Sequence[Leg]:
    """Return the movements of a transfer that several partitions posted, once all of them have."""
    legs = []
    for index in range(original.extras()["linked"]["legs"]):
        link = books.link(link_id(original.saga_id, index), DEBIT)
        if link is None or link.state != COMMITTED:
            return ()
        legs.append(Leg(link.source, link.destination, link.amount_minor, link.currency))
    return legs
