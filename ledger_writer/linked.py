"""Transfers that several partitions must agree on: prepared at each, then committed or aborted.

Each leg has one *place*, where both of its sides are posted: the home of its source if that is
guarded, else of its destination if that is, else of the transfer. A capped payee whose home is
another place must agree too, and promises the room. `begin` is the transfer's first command and
decides the home's part; it tells which other homes must agree. A part is decided whole. Committing
and aborting are never refused where a part was prepared: both are told by the saga, never by time,
so nothing that was prepared can end while a commit is on its way. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ledger_writer.accounts import home_of
from ledger_writer.linked_books import Ask, LinkedBooks
from ledger_writer.model import ABORTED, COMMITTED, PREPARED, TRANSFER_REJECTED
from ledger_writer.operations import CREDIT, DEBIT, OPEN
from ledger_writer.outcome import Outcome, Refusal
from schemas.ids import partition_of, slot_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ledger_writer.model import Account, Command, Entry
    from ledger_writer.operations import Link

SEVERAL_HOMES: Final = frozenset({"wrong_partition", "credit_needs_home"})
"""Why a transfer can't be posted here alone."""
ALREADY_PREPARED: Final = "already_prepared"


def begin(books: LinkedBooks, command: Command) -> Outcome:
    """Prepare the home's part of a transfer, and tell whose homes must agree beside it."""
    return _agree(books, command, books.partition, names_parts=True)


def prepare(books: LinkedBooks, command: Command) -> Outcome:
    """Prepare this partition's part, as the transfer's home has asked; once, whatever came of it.

    A trial is only told whether it could be: nothing is kept, and there is nothing to end.
    """
    if not command.dry_run and was_prepared(books, command):
        return Outcome(TRANSFER_REJECTED, ALREADY_PREPARED)
    home = partition_of(slot_of(command.saga_id), books.partitions)
    return _agree(books, command, home, names_parts=False)


def commit(books: LinkedBooks, command: Command, *, of_nothing: bool = False) -> Outcome:
    """Post what was prepared here, whatever was frozen since; that may be nothing if so told."""
    if not of_nothing and not any(open_links(books, command)):
        return Outcome(TRANSFER_REJECTED, "not_prepared")
    return _finish(books, command, COMMITTED)


def abort(books: LinkedBooks, command: Command) -> Outcome:
    """Give up what was prepared here; nothing, where the part was refused."""
    return _finish(books, command, ABORTED)


def agreement(command: Command) -> str:
    """Name what is agreed on: a transfer, or one reversal of those that its original may have."""
    if command.reversal is None:
        return command.saga_id
    return f"{command.saga_id}/{command.identity}"


def link_id(agreed_on: str, index: int) -> str:
    """Name what partitions keep of one leg."""
    return f"{agreed_on}/{index}"


def was_prepared(books: LinkedBooks, command: Command) -> bool:
    """Tell whether anything was agreed to here, however it ended."""
    return any(_links(books, command))


def open_links(books: LinkedBooks, command: Command) -> Iterator[tuple[int, Link]]:
    """Return what is still open here of a transfer, by leg, the debit first."""
    return ((at, link) for at, link in _links(books, command) if link.state == OPEN)


def _links(books: LinkedBooks, command: Command) -> Iterator[tuple[int, Link]]:
    agreed_on = agreement(command)
    for index in range(len(command.legs)):
        for kind in (DEBIT, CREDIT):
            link = books.link(link_id(agreed_on, index), kind)
            if link is not None and link.partition == books.partition:
                yield index, link


def _finish(books: LinkedBooks, command: Command, kind: str) -> Outcome:
    found = list(open_links(books, command))
    entries: list[Entry] = []
    for _, link in found:
        entries += books.finish(link, kind.partition(".")[2])
    linked: dict[str, object] = {
        "held": [[index, link.amount_minor] for index, link in found if link.kind == DEBIT],
        "reserved": [[index, link.amount_minor] for index, link in found if link.kind == CREDIT],
        "legs": len(command.legs),
    }
    if kind == ABORTED:
        linked |= {"reason": command.reason, "failed_leg": command.failed_leg}
    return Outcome(kind, entries=tuple(entries), linked=linked)


def _agree(books: LinkedBooks, command: Command, home: int, *, names_parts: bool) -> Outcome:
    accounts = _accounts(books, command)
    if isinstance(accounts, Refusal):
        return _refused(accounts)
    asks = _asks(books, command, accounts, home)
    made = books.agree(command.tenant, asks, keep=not command.dry_run)
    if isinstance(made, Refusal):
        return _refused(made)
    kept = () if command.dry_run else asks
    linked = told(kept, len(command.legs), _parts(books, command, accounts) if names_parts else ())
    return Outcome(PREPARED, entries=made, linked=linked)


def told(asks: Sequence[Ask], legs: int, parts: Sequence[str]) -> dict[str, object]:
    """Return what a row tells of what was agreed to here, of `legs` in all."""
    linked: dict[str, object] = {
        "held": [[a.index, a.leg.amount_minor, a.leg.destination] for a in asks if a.debit],
        "reserved": [
            [a.index, a.leg.amount_minor, a.leg.source, a.leg.destination, a.leg.currency]
            for a in asks
            if a.credit
        ],
        "legs": legs,
    }
    if parts:
        linked["parts"] = list(parts)
    return linked


def _accounts(books: LinkedBooks, command: Command) -> Sequence[tuple[Account, Account]] | Refusal:
    """Return both accounts of every leg; all must exist before anybody is asked."""
    found = []
    for index, leg in enumerate(command.legs):
        source, destination = books.standing(leg.source), books.standing(leg.destination)
        if source is None or destination is None:
            return Refusal("account_not_found", index)
        found.append((source.account, destination.account))
    return found


def _asks(
    books: LinkedBooks,
    command: Command,
    accounts: Sequence[tuple[Account, Account]],
    home: int,
) -> Sequence[Ask]:
    asks = []
    for index, (leg, (source, destination)) in enumerate(zip(command.legs, accounts, strict=True)):
        debit = _place(source, destination, home) == books.partition
        credit = destination.max_balance_minor is not None and destination.home == books.partition
        if debit or credit:
            asks.append(Ask(link_id(agreement(command), index), index, leg, debit, credit))
    return asks


def _place(source: Account, destination: Account, home: int) -> int:
    if source.guarded:
        return source.home
    return destination.home if destination.guarded else home


def _parts(
    books: LinkedBooks, command: Command, accounts: Sequence[tuple[Account, Account]]
) -> Sequence[str]:
    """Return an account at each home that must agree, the transfer's own first."""
    parts = {books.partition: command.home_account}
    for source, destination in accounts:
        if source.guarded:
            parts.setdefault(source.home, source.account_id)
        if destination.guarded and (
            not source.guarded or destination.max_balance_minor is not None
        ):
            parts.setdefault(destination.home, destination.account_id)
    assert all(home_of(account, books.partitions) == at for at, account in parts.items())
    return list(parts.values())


def _refused(refusal: Refusal) -> Outcome:
    return Outcome(TRANSFER_REJECTED, refusal.reason, refusal.leg)
