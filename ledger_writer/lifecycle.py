"""An account's life: opened once, frozen and unfrozen by direction, closed for good. Pure.

All of it is decided at the account's home. Flags count for movements on every partition: whoever
changes one makes every other writer look again before it commits. What others hold of an account is
read for its closing, and compared once more when that is committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ledger_writer.accounts import account_of, limits_fit
from ledger_writer.linked_books import LinkedBooks
from ledger_writer.model import ACCOUNT_REJECTED, CLOSED, FROZEN, OPENED, UNFROZEN, Standing
from ledger_writer.outcome import Outcome
from schemas.money import EXPONENTS

if TYPE_CHECKING:
    from ledger_writer.model import Account, Command


def open_account(books: LinkedBooks, command: Command) -> Outcome:
    """Open the account that the draft describes."""
    draft = command.draft
    assert draft is not None
    if books.standing(draft.account_id) is not None:
        return _refused("account_exists")
    if draft.currency not in EXPONENTS:
        return _refused("currency_unknown")
    if not limits_fit(draft):
        return _refused("limits_invalid")
    books.open(account_of(books.partition, books.position, command.tenant, draft))
    return Outcome(OPENED)


def freeze(books: LinkedBooks, command: Command) -> Outcome:
    """Stop debits, credits or both; what is stopped stays stopped."""
    ask = command.flags
    assert ask is not None
    standing, reason = _standing(books, command)
    if standing is None:
        return _refused(reason)
    account = standing.account
    frozen = replace(
        account,
        debits_frozen=account.debits_frozen or ask.debits,
        credits_frozen=account.credits_frozen or ask.credits,
    )
    books.flag(standing, frozen, None)
    return Outcome(FROZEN, facts=_flags(frozen))


def unfreeze(books: LinkedBooks, command: Command) -> Outcome:
    """Allow debits, credits or both again; what is not stopped stays allowed."""
    ask = command.flags
    assert ask is not None
    standing, reason = _standing(books, command)
    if standing is None:
        return _refused(reason)
    account = standing.account
    thawed = replace(
        account,
        debits_frozen=account.debits_frozen and not ask.debits,
        credits_frozen=account.credits_frozen and not ask.credits,
    )
    books.flag(standing, thawed, None)
    return Outcome(UNFROZEN, facts=_flags(thawed))


def close(books: LinkedBooks, command: Command) -> Outcome:
    """Close an account that has nothing, holds nothing and is owed nothing on any partition."""
    standing, reason = _standing(books, command)
    if standing is None:
        return _refused(reason)
    elsewhere = books.elsewhere(standing.account.account_id)
    if standing.held_minor + elsewhere.held_minor:
        return _refused("account_has_holds")
    if books.incoming_minor(standing.account.account_id):
        return _refused("account_has_holds")
    if standing.posted_minor + elsewhere.posted_minor:
        return _refused("account_not_empty")
    closed = replace(standing.account, closed=True)
    books.flag(standing, closed, elsewhere)
    return Outcome(CLOSED, facts=_flags(closed))


def _standing(books: LinkedBooks, command: Command) -> tuple[Standing | None, str]:
    """Return the account that a command is about, or None and why it can't be acted upon."""
    assert command.flags is not None
    standing = books.standing(command.flags.account_id)
    if standing is None or standing.account.tenant != command.tenant:
        return None, "account_not_found"
    if standing.account.home != books.partition:
        return None, "wrong_partition"
    return (None, "account_closed") if standing.account.closed else (standing, "")


def _flags(account: Account) -> dict[str, object]:
    return {
        "debits_frozen": account.debits_frozen,
        "credits_frozen": account.credits_frozen,
        "closed": account.closed,
    }


def _refused(reason: str) -> Outcome:
    return Outcome(ACCOUNT_REJECTED, reason)
