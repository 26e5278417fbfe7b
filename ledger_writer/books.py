"""What a batch has changed so far, over what was known before it: balances, holds, flags, totals.

Movements are made here, and nowhere else: each checks what its accounts allow, raises the share's
version by one and tells the share after it. A refused movement leaves everything as it was. The
view underneath is never changed. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger_writer.identity import key_of
from ledger_writer.model import BALANCE_MINOR_MAX, Account, Entry, Leg, Row, Standing
from ledger_writer.operations import Elsewhere, Flagged, Hold, LegPlace, Reversal
from ledger_writer.outcome import Refusal
from schemas.ids import identity_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ledger_writer.model import View


class Books:
    """The state of a batch while it is decided."""

    __slots__ = (
        "_holds",
        "_reversals",
        "_standings",
        "_view",
        "claimed",
        "doubted",
        "flagged",
        "log_time_us",
        "opened",
        "position",
    )

    def __init__(self, view: View) -> None:
        self._view = view
        self._standings: dict[str, Standing] = {}
        self._holds: dict[str, Hold] = {}
        self._reversals: dict[LegPlace, Reversal] = {}
        self.claimed: dict[bytes, Row] = {}
        self.flagged: dict[str, Flagged] = {}
        self.opened: list[Account] = []
        self.doubted: set[str] = set()
        self.position = view.next_position
        self.log_time_us = view.log_time_us

    # -- movements -------------------------------------------------------------------------------

    def move(
        self, tenant: str, legs: Iterable[Leg], *, keep: bool = True
    ) -> tuple[Entry, ...] | Refusal:
        """Make all movements or none: each sees the ones before it, a refused one undoes them.

        Without `keep` they are all undone in the end.
        """
        entries: list[Entry] = []
        done: list[tuple[Standing, Standing, int]] = []
        refusal = None
        standing = self.standing
        for index, leg in enumerate(legs):
            source, destination = standing(leg.source), standing(leg.destination)
            reason = self._obstacle(tenant, leg, source, destination)
            if reason is not None:
                refusal = Refusal(reason, index)
                break
            assert source is not None
            assert destination is not None
            entries.append(change(source, -leg.amount_minor))
            entries.append(change(destination, leg.amount_minor))
            done.append((source, destination, leg.amount_minor))
        if refusal is not None or not keep:
            for source, destination, amount_minor in reversed(done):
                undo(source, -amount_minor)
                undo(destination, amount_minor)
        return refusal or tuple(entries)

    def set_aside(self, tenant: str, leg: Leg, *, keep: bool = True) -> tuple[Entry] | Refusal:
        """Hold the leg's amount at its source; the destination's cap is looked at when it moves."""
        source, destination = self.standing(leg.source), self.standing(leg.destination)
        reason = self._accounts_obstacle(tenant, leg, source, destination)
        if reason is not None:
            return Refusal(reason, 0)
        assert source is not None
        assert destination is not None
        reason = self._debit_obstacle(source, leg.amount_minor)
        reason = reason or self._credit_obstacle(destination, 0)
        if reason is None and source.held_minor + leg.amount_minor > BALANCE_MINOR_MAX:
            reason = "balance_limit_exceeded"
        if reason is not None:
            return Refusal(reason, 0)
        entry = change(source, 0, leg.amount_minor)
        if not keep:
            undo(source, 0, leg.amount_minor)
        return (entry,)

    def move_held(self, tenant: str, leg: Leg) -> tuple[Entry, ...] | Refusal:
        """Move what a hold has set aside: what is available at the source stays as it is."""
        source, destination = self.standing(leg.source), self.standing(leg.destination)
        reason = self._accounts_obstacle(tenant, leg, source, destination)
        if reason is not None:
            return Refusal(reason, 0)
        assert source is not None
        assert destination is not None
        if source.posted_minor - leg.amount_minor < -BALANCE_MINOR_MAX:
            return Refusal("balance_limit_exceeded", 0)
        reason = self._credit_obstacle(destination, leg.amount_minor)
        if reason is not None:
            return Refusal(reason, 0)
        debit = change(source, -leg.amount_minor, -leg.amount_minor)
        return debit, change(destination, leg.amount_minor)

    def release(self, hold: Hold) -> tuple[Entry]:
        """Give back what is left of a hold."""
        source = self.standing(hold.source)
        assert source is not None
        return (change(source, 0, -hold.remaining_minor),)

    # -- what is known ---------------------------------------------------------------------------

    @property
    def partition(self) -> int:
        """The partition that decides."""
        return self._view.partition

    @property
    def partitions(self) -> int:
        """How many there are."""
        return self._view.partitions

    def standing(self, account_id: str) -> Standing | None:
        """Return this batch's own copy of a standing."""
        mine = self._standings.get(account_id)
        if mine is not None:
            return mine
        known = self._view.standings.get(account_id)
        if known is None:
            return None
        mine = self._standings[account_id] = Standing(
            known.account,
            known.posted_minor,
            known.held_minor,
            known.version,
            known.foreign_minor,
            known.stored_version,
            known.promised_minor,
        )
        return mine

    def hold(self, hold_id: str) -> Hold | None:
        """Return a hold of any partition, as it stands now."""
        return self._holds.get(hold_id) or self._view.known.holds.get(hold_id)

    def original(self, original_id: str) -> Row | None:
        """Return the row that claimed this id's identity."""
        key = key_of(identity_of(original_id))
        return self.claimed.get(key) or self._view.known.originals.get(key)

    def reversed_minor(self, place: LegPlace) -> int:
        """Return how much of this leg was paid back so far."""
        mine = self._reversals.get(place)
        return mine.reversed_minor if mine else self._view.known.reversed_minor.get(place, 0)

    def elsewhere(self, account_id: str) -> Elsewhere:
        """Return what other partitions have of an account to be closed; a new one has nothing."""
        return self._view.known.elsewhere.get(account_id) or Elsewhere(0, 0)

    # -- what changes ----------------------------------------------------------------------------

    def open(self, account: Account) -> None:
        """Add an account, with nothing on it."""
        self.opened.append(account)
        self._standings[account.account_id] = Standing(account, 0, 0, 0, 0, None)

    def keep_hold(self, hold: Hold) -> None:
        """Keep a hold as it stands now."""
        self._holds[hold.hold_id] = hold

    def keep_reversed(self, place: LegPlace, reversed_minor: int) -> None:
        """Keep how much of this leg was paid back."""
        stored_minor = self._view.known.reversed_minor.get(place, 0)
        self._reversals[place] = Reversal(place, reversed_minor, stored_minor)

    def flag(self, standing: Standing, account: Account, elsewhere: Elsewhere | None) -> None:
        """Change an account's flags, for all movements from here on."""
        if account != standing.account:
            standing.account = account
            self.flagged[account.account_id] = Flagged(account, elsewhere)

    def changed(self) -> list[Standing]:
        """Return the standings that differ from the view's, or have no row yet and need one."""
        before = self._view.standings
        return [
            standing
            for account_id, standing in self._standings.items()
            if account_id not in before or standing.version != before[account_id].version
        ]

    def holds(self) -> Sequence[Hold]:
        """Return the holds that were placed or changed."""
        return tuple(self._holds.values())

    def reversals(self) -> Sequence[Reversal]:
        """Return the totals that have grown."""
        return tuple(self._reversals.values())

    # -- why not ---------------------------------------------------------------------------------

    def _obstacle(
        self, tenant: str, leg: Leg, source: Standing | None, destination: Standing | None
    ) -> str | None:
        reason = self._accounts_obstacle(tenant, leg, source, destination)
        if reason is not None:
            return reason
        assert source is not None
        assert destination is not None
        return self._debit_obstacle(source, leg.amount_minor) or self._credit_obstacle(
            destination, leg.amount_minor
        )

    def _accounts_obstacle(
        self, tenant: str, leg: Leg, source: Standing | None, destination: Standing | None
    ) -> str | None:
        """Return why these accounts allow no movement now. Another tenant's account is unknown."""
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
        return None

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
        """Of a capped account's room, its home knows what is posted there and what is promised."""
        account = standing.account
        posted = standing.posted_minor + amount_minor
        if account.max_balance_minor is not None:
            if account.home != self._view.partition:
                return "credit_needs_home"
            if posted + standing.promised_minor > account.max_balance_minor:
                return "balance_limit_exceeded"
        return "balance_limit_exceeded" if posted > BALANCE_MINOR_MAX else None


def change(standing: Standing, amount_minor: int, held_minor: int = 0) -> Entry:
    """Move a share on, and return the entry that tells of it."""
    standing.posted_minor += amount_minor
    standing.held_minor += held_minor
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


def undo(standing: Standing, amount_minor: int, held_minor: int = 0) -> None:
    """Take back a share's last change."""
    standing.posted_minor -= amount_minor
    standing.held_minor -= held_minor
    standing.version -= 1
