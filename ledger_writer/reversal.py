"""Reversals: what a transfer moved is moved back, whole or in part, never more of it. Pure.

The total that was paid back of a leg is kept by one partition, its *owner* (`ids.payback_home`). So
reversals of one leg, however many race, are decided one after the other in one log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger_writer.accounts import home_of
from ledger_writer.linked import link_id
from ledger_writer.linked_books import LinkedBooks
from ledger_writer.model import (
    ARCHIVED,
    HOLD_PLACED,
    POSTED,
    PREPARED,
    REVERSED,
    TRANSFER_REJECTED,
    Leg,
)
from ledger_writer.operations import COMMITTED, DEBIT
from ledger_writer.outcome import Outcome, Refusal
from schemas.ids import payback_home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger_writer.model import Command, Row


def reverse(books: LinkedBooks, command: Command) -> Outcome:
    """Move back what was asked for, all or nothing."""
    ask = command.reversal
    assert ask is not None
    original = books.original(ask.original_id)
    if original is not None and original.type == ARCHIVED:
        return _refused("original_archived")
    if original is None or (original.tenant, original.transfer_id) != (
        command.tenant,
        ask.original_id,
    ):
        return _refused("original_not_found")
    legs = _moved(books, original)
    if not legs or (ask.leg is not None and ask.leg >= len(legs)):
        return _refused("original_not_found", ask.leg)
    chosen = _chosen(legs, ask.leg)
    for index in chosen:
        if _owner(legs, index, books.partitions) != books.partition:
            return _refused("wrong_partition", index)
    place = original.partition, original.position
    left = {i: legs[i].amount_minor - books.reversed_minor((*place, i)) for i in chosen}
    if not any(left.values()):
        return _refused("already_reversed", ask.leg)
    amounts = {i: left_minor for i, left_minor in left.items() if left_minor}
    if ask.amount_minor is not None:
        if len(chosen) > 1:
            return _refused("original_leg_required")
        if ask.amount_minor > left[chosen[0]]:
            return _refused("amount_exceeds_original", ask.leg)
        amounts = {chosen[0]: ask.amount_minor}
    return _pay_back(books, command, original, legs, amounts)


def _pay_back(
    books: LinkedBooks,
    command: Command,
    original: Row,
    legs: Sequence[Leg],
    amounts: dict[int, int],
) -> Outcome:
    indexes = list(amounts)
    made = books.move(command.tenant, [_back(legs[i], amounts[i]) for i in indexes])
    if isinstance(made, Refusal):
        return _refused(made.reason, None if made.leg is None else indexes[made.leg])
    remaining_minor = 0
    for index, amount_minor in amounts.items():
        place = original.partition, original.position, index
        reversed_minor = books.reversed_minor(place) + amount_minor
        books.keep_reversed(place, reversed_minor)
        remaining_minor += legs[index].amount_minor - reversed_minor
    one_currency = len({legs[index].currency for index in indexes}) == 1
    facts: dict[str, object] = {
        "amount_minor": sum(amounts.values()) if one_currency else None,
        "remaining_minor": remaining_minor,
        "partition": original.partition,
        "position": original.position,
        "legs": list(amounts.items()),
    }
    return Outcome(REVERSED, entries=made, facts=facts)


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


def _chosen(legs: Sequence[Leg], leg: int | None) -> Sequence[int]:
    """Return the legs to pay back; the last one first, as money that went on must come back."""
    return list(reversed(range(len(legs)))) if leg is None else [leg]


def _owner(legs: Sequence[Leg], index: int, partitions: int) -> int:
    sides = [(leg.source, leg.destination) for leg in legs]
    return home_of(payback_home(sides, index), partitions)


def _back(leg: Leg, amount_minor: int) -> Leg:
    return Leg(leg.destination, leg.source, amount_minor, leg.currency)


def _refused(reason: str, leg: int | None = None) -> Outcome:
    return Outcome(TRANSFER_REJECTED, reason, leg)
