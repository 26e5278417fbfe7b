"""Holds: placed at the source's home, posted in parts, and the rest given back. Pure.

What is held is available to nobody else, and what is left of a hold is always covered. A hold ends
when nothing is left of it: all posted, voided, or expired. It expires by a command in the log, and
not before its time by log time; until then it can be posted, however late the command comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ledger_writer import operations
from ledger_writer.books import Books
from ledger_writer.model import HOLD_PLACED, HOLD_POSTED, HOLD_REJECTED, HOLD_VOIDED, Leg
from ledger_writer.operations import EXPIRED, Hold
from ledger_writer.outcome import Outcome, Refusal

if TYPE_CHECKING:
    from ledger_writer.model import Command


def place(books: Books, command: Command) -> Outcome:
    """Hold the amount of the one leg."""
    ask, [leg] = command.hold, command.legs
    assert ask is not None
    made = books.set_aside(command.tenant, leg, keep=not command.dry_run)
    if isinstance(made, Refusal):
        return _refused(made.reason, made.leg)
    facts: dict[str, object] = {
        "amount_minor": leg.amount_minor,
        "remaining_minor": leg.amount_minor,
        "expires_at_us": ask.expires_at_us,
        "destination": leg.destination,
    }
    if command.dry_run:
        return Outcome(HOLD_PLACED, facts=facts)
    hold = Hold(
        ask.hold_id,
        books.partition,
        leg.source,
        leg.destination,
        leg.currency,
        leg.amount_minor,
        leg.amount_minor,
        0,
        ask.expires_at_us,
        operations.OPEN,
        None,
    )
    books.keep_hold(hold)
    return Outcome(HOLD_PLACED, entries=made, facts=facts)


def capture(books: Books, command: Command) -> Outcome:
    """Post part of a hold or all that is left; the accounts must still allow it."""
    assert command.hold is not None
    hold, reason = _open_hold(books, command)
    if hold is None:
        return _refused(reason)
    amount_minor = command.hold.amount_minor or hold.remaining_minor
    if amount_minor > hold.remaining_minor:
        return _refused("amount_exceeds_hold")
    leg = Leg(hold.source, hold.destination, amount_minor, hold.currency)
    made = books.move_held(command.tenant, leg)
    if isinstance(made, Refusal):
        return _refused(made.reason, made.leg)
    remaining_minor = hold.remaining_minor - amount_minor
    books.keep_hold(
        replace(
            hold,
            remaining_minor=remaining_minor,
            captured_minor=hold.captured_minor + amount_minor,
            state=operations.OPEN if remaining_minor else operations.POSTED,
        )
    )
    facts: dict[str, object] = {"amount_minor": amount_minor, "remaining_minor": remaining_minor}
    return Outcome(HOLD_POSTED, entries=made, facts=facts)


def void(books: Books, command: Command) -> Outcome:
    """Give back what is left of a hold, because it is not wanted or because its time is over."""
    assert command.hold is not None
    assert command.hold.reason is not None
    hold, reason = _open_hold(books, command)
    if hold is None:
        return _refused(reason)
    if command.hold.reason == EXPIRED and (
        hold.expires_at_us is None or books.log_time_us < hold.expires_at_us
    ):
        return _refused("hold_not_expired")
    entries = books.release(hold)
    books.keep_hold(replace(hold, remaining_minor=0, state=command.hold.reason))
    facts: dict[str, object] = {
        "amount_minor": hold.remaining_minor,
        "remaining_minor": 0,
        "reason": command.hold.reason,
    }
    return Outcome(HOLD_VOIDED, entries=entries, facts=facts)


def _open_hold(books: Books, command: Command) -> tuple[Hold | None, str]:
    """Return the hold that a command is about, or None and why it can't be acted upon."""
    assert command.hold is not None
    hold = books.hold(command.hold.hold_id)
    if hold is None or hold.partition != books.partition:
        return None, "hold_not_found"
    source = books.standing(hold.source)
    if source is None or source.account.tenant != command.tenant:
        return None, "hold_not_found"
    return (hold, "") if hold.remaining_minor else (None, "hold_closed")


def _refused(reason: str, leg: int | None = None) -> Outcome:
    return Outcome(HOLD_REJECTED, reason, leg)
