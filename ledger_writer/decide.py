"""Decides commands in log order: what is posted, what is refused and why, and what follows.

Pure: the same view and commands give the same decision, whatever the clock. Invariants: each
row's entries sum to zero per currency; a guarded account never falls below its limit on the
knowledge given; a refused command changes nothing; share versions and positions rise by one.
It must never read anything but its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec
import orjson

from ledger_writer import command as commands_
from ledger_writer import holds, lifecycle, linked, reversal
from ledger_writer.chain import seal
from ledger_writer.identity import ARCHIVED as OUTCOME_ARCHIVED
from ledger_writer.identity import claim_key, repeats
from ledger_writer.linked_books import LinkedBooks
from ledger_writer.model import (
    ACCOUNT_REJECTED,
    ARCHIVED,
    HOLD_REJECTED,
    POSTED,
    TRANSFER_REJECTED,
    Claim,
    Command,
    Decision,
    Row,
    View,
)
from ledger_writer.outcome import Outcome, Refusal
from schemas.ids import partition_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def decide(view: View, commands: Sequence[Command]) -> Decision:
    """Decide every command; see View and Decision."""
    work = _Work(view)
    for command in commands:
        work.take(command)
    books = work.books
    return Decision(
        work.rows,
        work.claims,
        books.opened,
        books.changed(),
        books.doubted,
        books.position,
        books.log_time_us,
        work.chain_hash,
        books.holds(),
        books.reversals(),
        tuple(books.flagged.values()),
        books.links(),
        books.rooms(),
    )


def post(books: LinkedBooks, command: Command) -> Outcome:
    """Post all legs of a transfer, or none; begin to where other homes must agree."""
    made = books.move(command.tenant, command.legs, keep=not command.dry_run)
    if isinstance(made, Refusal):
        if made.reason in linked.SEVERAL_HOMES:
            return linked.begin(books, command)
        return Outcome(TRANSFER_REJECTED, made.reason, made.leg)
    return Outcome(POSTED, entries=() if command.dry_run else made)


def reject(books: LinkedBooks, command: Command) -> Outcome:
    """Move nothing, for the reason that came with the command."""
    del books
    return Outcome(TRANSFER_REJECTED, command.reason)


Decider = Callable[[LinkedBooks, Command], Outcome]


def _of_either(transfer: Decider, reversed_: Decider) -> Decider:
    """Return who decides on a part of a transfer, or of a reversal, that several must agree on."""
    return lambda books, command: (reversed_ if command.reversal else transfer)(books, command)


DECIDERS: Final[dict[str, Decider]] = {
    commands_.POST: post,
    commands_.REJECT: reject,
    commands_.PREPARE: _of_either(linked.prepare, reversal.prepare),
    commands_.COMMIT: _of_either(linked.commit, reversal.commit),
    commands_.ABORT: _of_either(linked.abort, reversal.abort),
    commands_.REVERSE: reversal.reverse,
    commands_.PLACE: holds.place,
    commands_.CAPTURE: holds.capture,
    commands_.VOID: holds.void,
    commands_.OPEN: lifecycle.open_account,
    commands_.FREEZE: lifecycle.freeze,
    commands_.UNFREEZE: lifecycle.unfreeze,
    commands_.CLOSE: lifecycle.close,
}
"""Who decides which command."""

_REFUSALS: Final = {
    "transfer": TRANSFER_REJECTED,
    "hold": HOLD_REJECTED,
    "account": ACCOUNT_REJECTED,
}
_TRIABLE: Final = frozenset({commands_.POST, commands_.REJECT, commands_.PLACE, commands_.PREPARE})


class _Work:
    """Takes commands one by one, and keeps what they come to."""

    __slots__ = ("_view", "books", "chain_hash", "claims", "rows")

    def __init__(self, view: View) -> None:
        self._view = view
        self.books = LinkedBooks(view)
        self.rows: list[Row] = []
        self.claims: list[Claim] = []
        self.chain_hash = view.chain_hash

    def take(self, command: Command) -> None:
        """Decide one command and append its row; a dry run claims no identity and finds none."""
        books = self.books
        books.log_time_us = max(books.log_time_us, command.recorded_at_us)
        if command.dry_run:
            self._append(command, self._outcome(command))
            return
        key = claim_key(command)
        first = books.claimed.get(key) or self._view.claims.get(key)
        if first is not None:
            self._append(command, _again(command, first))
            return
        books.claimed[key] = self._append(command, self._outcome(command))
        self.claims.append(Claim(key, books.position - 1))

    def _outcome(self, command: Command) -> Outcome:
        if partition_of(command.slot, self._view.partitions) != self._view.partition:
            return _refused(command, "wrong_partition")
        if command.dry_run and (command.reversal or command.type not in _TRIABLE):
            return _refused(command, "dry_run_unsupported")
        return DECIDERS[command.type](self.books, command)

    def _append(self, command: Command, outcome: Outcome) -> Row:
        told, books = outcome.repeats, self.books
        effective = command.effective_at_us
        row = Row(
            self._view.partition,
            books.position,
            command.offset,
            books.log_time_us,
            books.log_time_us if effective is None else effective,
            outcome.type,
            command.tenant,
            command.saga_id,
            command.step,
            command.attempt,
            command.identity,
            command.body_hash,
            command.home_account,
            command.transfer_id,
            outcome.reason,
            outcome.failed_leg,
            told,
            None if told is not None else _extra(command, outcome),
            outcome.entries,
            b"",
        )
        self.chain_hash = seal(self.chain_hash, row)
        books.position += 1
        self.rows.append(row)
        return row


def _again(command: Command, first: Row) -> Outcome:
    if first.type == ARCHIVED:
        return _refused(command, OUTCOME_ARCHIVED)
    if not repeats(command, first):
        return _refused(command, "idempotency_key_reused")
    origin = first.repeats or first
    return Outcome(origin.type, origin.reason, origin.failed_leg, repeats=origin)


def _refused(command: Command, reason: str) -> Outcome:
    return Outcome(_REFUSALS[command.type.partition(".")[0]], reason)


def _extra(command: Command, outcome: Outcome) -> str | None:
    """Return what few rows have as canonical JSON, or None when this one has nothing of it."""
    plain = command.type == commands_.POST and not command.dry_run and outcome.linked is None
    if plain and command.reference is None and not command.metadata:
        return None
    extra: dict[str, object] = {}
    told = outcome.facts or {}
    if command.reference is not None:
        extra["reference"] = command.reference
    if command.metadata:
        extra["metadata"] = command.metadata
    if command.draft is not None:
        extra["account"] = msgspec.structs.asdict(command.draft)
    if command.hold is not None:
        extra["hold"] = {"hold_id": command.hold.hold_id, **told}
    if command.reversal is not None:
        asked = command.reversal
        extra["reversal"] = {"original_id": asked.original_id, "leg": asked.leg, **told}
    if command.flags is not None:
        extra["account"] = {"account_id": command.flags.account_id, **told}
    if outcome.linked is not None:
        extra["linked"] = outcome.linked
    if command.dry_run:
        extra["dry_run"] = True
    if not extra:
        return None
    return orjson.dumps(extra, option=orjson.OPT_SORT_KEYS).decode()
