"""Reversals: what a transfer moved is moved back, whole or in part, never more of it. Pure.

The total that was paid back of a leg is kept by one partition, its *owner* (`ids.payback_home`). So
reversals of one leg, however many race, are decided one after the other in one log. Where one owner
can't pay all back alone, because other legs have other owners or a capped payer is at home
elsewhere, the reversal is agreed on as a transfer of several homes is (`linked`): each leg is
posted by its owner, which counts it as paid back from when it is prepared until it is aborted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ledger_writer import linked
from ledger_writer.accounts import home_of
from ledger_writer.linked_books import Ask, LinkedBooks
from ledger_writer.model import PREPARED, REVERSED, TRANSFER_REJECTED, Leg
from ledger_writer.operations import DEBIT
from ledger_writer.original import Original, find
from ledger_writer.outcome import Outcome, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ledger_writer.model import Command, Row


def reverse(books: LinkedBooks, command: Command) -> Outcome:
    """Move back what was asked for, all or nothing, or begin to where other homes must agree."""
    ask = command.reversal
    assert ask is not None
    original = find(books, command)
    if isinstance(original, Refusal):
        return _refused(original.reason, original.leg)
    legs = original.legs
    if ask.leg is not None and ask.leg >= len(legs):
        return _refused("original_not_found", ask.leg)
    chosen = _chosen(legs, ask.leg)
    if not any(original.is_owned(index, books) for index in chosen):
        return _refused("wrong_partition", chosen[0])
    left = {i: legs[i].amount_minor - books.reversed_minor(original.place(i)) for i in chosen}
    if not any(left.values()):
        return _refused("already_reversed", ask.leg)
    amounts = {i: left_minor for i, left_minor in left.items() if left_minor}
    if ask.amount_minor is not None:
        if len(chosen) > 1:
            return _refused("original_leg_required")
        if ask.amount_minor > left[chosen[0]]:
            return _refused("amount_exceeds_original", ask.leg)
        amounts = {chosen[0]: ask.amount_minor}
    remaining_minor = sum(left[index] - amount_minor for index, amount_minor in amounts.items())
    back = {index: _back(legs[index], amount_minor) for index, amount_minor in amounts.items()}
    if all(original.is_owned(index, books) for index in back):
        outcome = _pay_back(books, command, original, back, remaining_minor)
        if outcome.reason not in linked.SEVERAL_HOMES:
            return outcome
    return _begin(books, command, original, back, remaining_minor)


def prepare(books: LinkedBooks, command: Command) -> Outcome:
    """Prepare this partition's part, as the reversal's home asked; once, whatever came of it."""
    if linked.was_prepared(books, command):
        return Outcome(TRANSFER_REJECTED, linked.ALREADY_PREPARED)
    ask = command.reversal
    assert ask is not None
    original = find(books, command)
    if isinstance(original, Refusal):
        return _refused(original.reason, original.leg)
    for index, leg in zip(ask.legs, command.legs, strict=True):
        if index >= len(original.legs) or leg != _back(original.legs[index], leg.amount_minor):
            return _refused("original_not_found", index)
        if original.is_owned(index, books):
            reversed_minor = books.reversed_minor(original.place(index))
            if leg.amount_minor > original.legs[index].amount_minor - reversed_minor:
                return _refused("amount_exceeds_original", index)
    return _agree(books, command, original, dict(zip(ask.legs, command.legs, strict=True)))


def commit(books: LinkedBooks, command: Command) -> Outcome:
    """Post what was prepared here, whatever was frozen since.

    That is nothing where the first home asked has nothing left to pay back, but others have.
    """
    original, ask = find(books, command), command.reversal
    assert ask is not None
    of_nothing = not linked.was_prepared(books, command) and (
        isinstance(original, Refusal)
        or not any(
            original.is_owned(index, books) or _caps(books, leg)
            for index, leg in zip(ask.legs, command.legs, strict=True)
        )
    )
    outcome = linked.commit(books, command, of_nothing=of_nothing)
    return outcome if outcome.reason else _ended(books, command, outcome)


def abort(books: LinkedBooks, command: Command) -> Outcome:
    """Give up what was prepared here; nothing, where the part was refused."""
    held = {index for index, link in linked.open_links(books, command) if link.kind == DEBIT}
    ask = command.reversal
    assert ask is not None
    original = books.original(ask.original_id)
    for index in held:
        assert original is not None, "what was prepared has an original"
        place = original.partition, original.position, ask.legs[index]
        amount_minor = command.legs[index].amount_minor
        books.keep_reversed(place, books.reversed_minor(place) - amount_minor)
    return _ended(books, command, linked.abort(books, command))


def _pay_back(
    books: LinkedBooks,
    command: Command,
    original: Original,
    back: Mapping[int, Leg],
    remaining_minor: int,
) -> Outcome:
    made = books.move(command.tenant, back.values())
    if isinstance(made, Refusal):
        return _refused(made.reason, None if made.leg is None else list(back)[made.leg])
    mine = [(index, leg.amount_minor) for index, leg in back.items()]
    for index, amount_minor in mine:
        _count(books, original, index, amount_minor)
    facts = _facts(original.row, list(back.values()), mine)
    return Outcome(REVERSED, entries=made, facts={**facts, "remaining_minor": remaining_minor})


def _begin(
    books: LinkedBooks,
    command: Command,
    original: Original,
    back: Mapping[int, Leg],
    remaining_minor: int,
) -> Outcome:
    """Prepare the home's part of a reversal, and tell which other homes must agree, and to what."""
    outcome = _agree(books, command, original, back)
    if outcome.reason:
        return outcome
    assert outcome.facts is not None
    assert outcome.linked is not None
    told = [[i, *msgspec.structs.astuple(leg)] for i, leg in back.items()]
    parts = _parts(books, command, original, back)
    return msgspec.structs.replace(
        outcome,
        facts={**outcome.facts, "remaining_minor": remaining_minor},
        linked={**outcome.linked, "parts": parts, "back": told},
    )


def _agree(
    books: LinkedBooks, command: Command, original: Original, back: Mapping[int, Leg]
) -> Outcome:
    """Agree to this partition's part of movements back, by the original's leg, or to nothing."""
    asks: list[Ask] = []
    agreed_on = linked.agreement(command)
    for number, (index, leg) in enumerate(back.items()):
        if books.standing(leg.source) is None or books.standing(leg.destination) is None:
            return _refused("account_not_found", index)
        debit, credit = original.is_owned(index, books), _caps(books, leg)
        if debit or credit:
            asks.append(Ask(linked.link_id(agreed_on, number), number, leg, debit, credit))
    made = books.agree(command.tenant, asks)
    indexes = list(back)
    if isinstance(made, Refusal):
        return _refused(made.reason, None if made.leg is None else indexes[made.leg])
    mine = [(indexes[ask.index], ask.leg.amount_minor) for ask in asks if ask.debit]
    for index, amount_minor in mine:
        _count(books, original, index, amount_minor)
    facts = _facts(original.row, list(back.values()), mine)
    return Outcome(PREPARED, entries=made, facts=facts, linked=linked.told(asks, len(back), ()))


def _parts(
    books: LinkedBooks, command: Command, original: Original, back: Mapping[int, Leg]
) -> list[str]:
    """Return an account at each home that must agree, the reversal's own first."""
    parts = {books.partition: command.home_account}
    for index, leg in back.items():
        owner, payee = original.owner(index), books.standing(leg.destination)
        parts.setdefault(home_of(owner, books.partitions), owner)
        assert payee is not None
        if payee.account.max_balance_minor is not None:
            parts.setdefault(payee.account.home, leg.destination)
    return list(parts.values())


def _ended(books: LinkedBooks, command: Command, outcome: Outcome) -> Outcome:
    """Add what a row tells of a reversal to the end of one home's part."""
    ask, ended = command.reversal, outcome.linked
    assert ask is not None
    assert ended is not None
    held = ended["held"]
    assert isinstance(held, list)
    legs = [(ask.legs[index], amount_minor) for index, amount_minor in held]
    facts = _facts(books.original(ask.original_id), command.legs, legs)
    return msgspec.structs.replace(outcome, facts=facts)


def _facts(
    original: Row | None, back: Sequence[Leg], mine: Sequence[tuple[int, int]]
) -> dict[str, object]:
    """Return what a row tells: what all homes pay back, and what this one does, by leg."""
    one_currency = len({leg.currency for leg in back}) == 1
    return {
        "amount_minor": sum(leg.amount_minor for leg in back) if one_currency else None,
        "partition": None if original is None else original.partition,
        "position": None if original is None else original.position,
        "legs": mine,
    }


def _chosen(legs: Sequence[Leg], leg: int | None) -> Sequence[int]:
    """Return the legs to pay back; the last one first, as money that went on must come back."""
    return list(reversed(range(len(legs)))) if leg is None else [leg]


def _caps(books: LinkedBooks, leg: Leg) -> bool:
    """Tell whether this partition must keep room for what a leg credits."""
    payee = books.standing(leg.destination)
    if payee is None or payee.account.max_balance_minor is None:
        return False
    return payee.account.home == books.partition


def _count(books: LinkedBooks, original: Original, leg: int, amount_minor: int) -> None:
    place = original.place(leg)
    books.keep_reversed(place, books.reversed_minor(place) + amount_minor)


def _back(leg: Leg, amount_minor: int) -> Leg:
    return Leg(leg.destination, leg.source, amount_minor, leg.currency)


def _refused(reason: str, leg: int | None = None) -> Outcome:
    return Outcome(TRANSFER_REJECTED, reason, leg)
