"""Decides commands in log order: what is posted, what is refused and why, and what follows.

Pure: the same view and commands give the same decision, whatever the clock. Invariants: each
row's entries sum to zero per currency; a guarded account never falls below its limit on the
knowledge given; a refused command changes nothing; share versions and positions rise by one.
It must never read anything but its arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import orjson

from ledger_writer.accounts import account_of, limits_fit
from ledger_writer.chain import seal
from ledger_writer.command import OPEN, REJECT
from ledger_writer.identity import claim_key, repeats
from ledger_writer.model import (
    ACCOUNT_REJECTED,
    BALANCE_MINOR_MAX,
    OPENED,
    POSTED,
    TRANSFER_REJECTED,
    Account,
    AccountDraft,
    Claim,
    Command,
    Decision,
    Entry,
    Leg,
    Row,
    Standing,
    View,
)
from schemas.ids import partition_of
from schemas.money import EXPONENTS

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Outcome(msgspec.Struct, frozen=True, gc=False):
    type: str
    reason: str | None = None
    failed_leg: int | None = None
    entries: tuple[Entry, ...] = ()
    repeats: Row | None = None


def decide(view: View, commands: Sequence[Command]) -> Decision:
    """Decide every command; see View and Decision."""
    work = _Work(view)
    for command in commands:
        work.take(command)
    return Decision(
        work.rows,
        work.claims,
        work.opened,
        work.changed(),
        work.doubted,
        work.position,
        work.log_time_us,
        work.chain_hash,
    )


class _Work:
    """The state of a batch while it is decided; the view underneath is never changed."""

    __slots__ = (
        "_accounts",
        "_claimed",
        "_view",
        "chain_hash",
        "claims",
        "doubted",
        "log_time_us",
        "opened",
        "position",
        "rows",
    )

    def __init__(self, view: View) -> None:
        self._view = view
        self._accounts: dict[str, Standing] = {}
        self._claimed: dict[bytes, Row] = {}
        self.rows: list[Row] = []
        self.claims: list[Claim] = []
        self.opened: list[Account] = []
        self.doubted: set[str] = set()
        self.position = view.next_position
        self.log_time_us = view.log_time_us
        self.chain_hash = view.chain_hash

    def take(self, command: Command) -> None:
        """Decide one command and append its row."""
        self.log_time_us = max(self.log_time_us, command.recorded_at_us)
        key = claim_key(command)
        first = self._claimed.get(key) or self._view.claims.get(key)
        if first is not None:
            self._append(command, _again(command, first))
            return
        if partition_of(command.slot, self._view.partitions) != self._view.partition:
            outcome = _refused(command, "wrong_partition")
        elif command.draft is not None:
            outcome = self._open(command, command.draft)
        elif command.type == REJECT:
            outcome = _refused(command, command.reason or "")
        else:
            outcome = self._post(command)
        self._claimed[key] = self._append(command, outcome)
        self.claims.append(Claim(key, self.position - 1))

    def changed(self) -> list[Standing]:
        """Return the standings that differ from the view's, or have no row yet and need one."""
        before = self._view.standings
        return [
            standing
            for account_id, standing in self._accounts.items()
            if account_id not in before or standing.version != before[account_id].version
        ]

    def _append(self, command: Command, outcome: _Outcome) -> Row:
        told = outcome.repeats
        effective = command.effective_at_us
        row = Row(
            self._view.partition,
            self.position,
            command.offset,
            self.log_time_us,
            self.log_time_us if effective is None else effective,
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
            None if told is not None else _extra(command),
            outcome.entries,
            b"",
        )
        self.chain_hash = seal(self.chain_hash, row)
        self.position += 1
        self.rows.append(row)
        return row

    def _open(self, command: Command, draft: AccountDraft) -> _Outcome:
        if self._standing(draft.account_id) is not None:
            return _refused(command, "account_exists")
        if draft.currency not in EXPONENTS:
            return _refused(command, "currency_unknown")
        if not limits_fit(draft):
            return _refused(command, "limits_invalid")
        account = account_of(self._view.partition, self.position, command.tenant, draft)
        self.opened.append(account)
        self._accounts[account.account_id] = Standing(account, 0, 0, 0, 0, None)
        return _Outcome(OPENED)

    def _post(self, command: Command) -> _Outcome:
        """Post all legs or none: each leg sees the ones before it, a refused one undoes them."""
        entries: list[Entry] = []
        done: list[tuple[Standing, Standing, int]] = []
        for index, leg in enumerate(command.legs):
            source, destination = self._standing(leg.source), self._standing(leg.destination)
            reason = self._obstacle(command.tenant, leg, source, destination)
            if reason is not None:
                for earlier_source, earlier_destination, amount in reversed(done):
                    _undo(earlier_source, amount)
                    _undo(earlier_destination, -amount)
                return _refused(command, reason, index)
            assert source is not None
            assert destination is not None
            entries.append(_move(source, -leg.amount_minor))
            entries.append(_move(destination, leg.amount_minor))
            done.append((source, destination, -leg.amount_minor))
        return _Outcome(POSTED, entries=tuple(entries))

    def _obstacle(
        self, tenant: str, leg: Leg, source: Standing | None, destination: Standing | None
    ) -> str | None:
        """Return why this leg can't be posted now, or None. Another tenant's account is unknown."""
        if leg.source == leg.destination:
            return "same_account"
        if source is None or destination is None:
            return "account_not_found"
        debited, credited = source.account, destination.account
        if debited.tenant != tenant or credited.tenant != tenant:
            return "account_not_found"
        if debited.closed or credited.closed:
            return "account_closed"
        if debited.debits_frozen or credited.credits_frozen:
            return "account_frozen"
        if debited.currency != leg.currency or credited.currency != leg.currency:
            return "currency_mismatch"
        return self._debit_obstacle(source, leg.amount_minor) or self._credit_obstacle(
            destination, leg.amount_minor
        )

    def _debit_obstacle(self, standing: Standing, amount_minor: int) -> str | None:
        account = standing.account
        if account.guarded and account.home != self._view.partition:
            return "wrong_partition"
        left = standing.posted_minor - amount_minor
        if account.min_balance_minor is not None:
            available = left + standing.foreign_minor - standing.held_minor
            if available < account.min_balance_minor:
                if account.account_id not in self._view.fresh:
                    self.doubted.add(account.account_id)
                return "insufficient_funds"
        return "balance_limit_exceeded" if left < -BALANCE_MINOR_MAX else None

    def _credit_obstacle(self, standing: Standing, amount_minor: int) -> str | None:
        """A capped account is credited at home only, where its whole balance is known exactly."""
        account = standing.account
        posted = standing.posted_minor + amount_minor
        if account.max_balance_minor is not None:
            if account.home != self._view.partition:
                return "wrong_partition"
            if posted + standing.foreign_minor > account.max_balance_minor:
                return "balance_limit_exceeded"
        return "balance_limit_exceeded" if posted > BALANCE_MINOR_MAX else None

    def _standing(self, account_id: str) -> Standing | None:
        """Return this batch's own copy of a standing."""
        mine = self._accounts.get(account_id)
        if mine is not None:
            return mine
        known = self._view.standings.get(account_id)
        if known is None:
            return None
        mine = self._accounts[account_id] = Standing(
            known.account,
            known.posted_minor,
            known.held_minor,
            known.version,
            known.foreign_minor,
            known.stored_version,
        )
        return mine


def _again(command: Command, first: Row) -> _Outcome:
    if not repeats(command, first):
        return _refused(command, "idempotency_key_reused")
    origin = first.repeats or first
    return _Outcome(origin.type, origin.reason, origin.failed_leg, repeats=origin)


def _refused(command: Command, reason: str, leg: int | None = None) -> _Outcome:
    return _Outcome(ACCOUNT_REJECTED if command.type == OPEN else TRANSFER_REJECTED, reason, leg)


def _move(standing: Standing, amount_minor: int) -> Entry:
    standing.posted_minor += amount_minor
    standing.version += 1
    account = standing.account
    return Entry(
        account.account_no,
        account.account_id,
        account.currency,
        standing.version,
        amount_minor,
        standing.posted_minor,
        standing.held_minor,
    )


def _undo(standing: Standing, amount_minor: int) -> None:
    standing.posted_minor -= amount_minor
    standing.version -= 1


def _extra(command: Command) -> str | None:
    """Return what few rows have as canonical JSON, or None when this one has nothing of it."""
    extra: dict[str, object] = {}
    if command.reference is not None:
        extra["reference"] = command.reference
    if command.metadata:
        extra["metadata"] = command.metadata
    if command.draft is not None:
        extra["account"] = msgspec.structs.asdict(command.draft)
    if not extra:
        return None
    return orjson.dumps(extra, option=orjson.OPT_SORT_KEYS).decode()
