"""What rows come to beside balances: holds, flags, and how much was paid back of what.

Fed with the rows of each partition in order, as the verifier is; it finds what contradicts the rows
before, and in the end what contradicts the tables. Pure, and independent of the deciders.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from ledger_writer import model, operations
from ledger_writer.derived_links import DerivedLinks
from ledger_writer.identity import is_dry
from ledger_writer.model import Account, Entry, Row
from ledger_writer.operations import Hold, LegPlace

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

_MOVING: Final = frozenset({model.POSTED, model.REVERSED, model.HOLD_POSTED})
_LINKING: Final = frozenset({model.PREPARED, model.COMMITTED, model.ABORTED})
_HOLDING: Final = frozenset({model.HOLD_PLACED, model.HOLD_POSTED, model.HOLD_VOIDED})
_FLAGGING: Final = frozenset({model.FROZEN, model.UNFROZEN, model.CLOSED})


class Derived:
    """`stopped` are the accounts with a flag set, by number; `numbers` those that were opened.

    `payers` are the partitions that paid back a leg; `partial` those whose rows are not fed from
    the first on, so that what is not known of them may have begun before.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.holds: dict[str, Hold] = {}
        self.reversed_minor: defaultdict[LegPlace, int] = defaultdict(int)
        self.payers: dict[LegPlace, int] = {}
        self.stopped: dict[int, Account] = {}
        self.partial: set[int] = set()
        self.links = DerivedLinks(self.partial)

    def take(self, row: Row, accounts: MutableMapping[int, Account]) -> Iterator[str]:
        """Add one row that was neither refused nor a repeat; its entries were checked before."""
        try:
            if row.type in _HOLDING:
                yield from self._take_hold(row, _told(row, "hold"))
            elif row.type == model.REVERSED:
                yield from self._take_reversal(row, _told(row, "reversal"))
            elif row.type in _LINKING:
                reversal = _told(row, "reversal")
                yield from self.links.take(row, _told(row, "linked"), of_reversal=bool(reversal))
                if reversal and row.type != model.COMMITTED:
                    yield from self._take_part(row, reversal)
            elif row.type in _FLAGGING:
                yield from self._take_flags(row, _told(row, "account"), accounts)
        except (KeyError, TypeError, ValueError) as error:
            yield f"a {row.type} that does not say what it did: {error!r}"

    def forbids(self, partition: int, entry: Entry, row_type: str) -> bool:
        """Tell whether a stopped account's flags forbid this entry; its home's order tells.

        What was prepared before an account was frozen is committed all the same.
        """
        account = self.stopped[entry.account_no]
        if entry.amount_minor == 0 or account.home != partition:
            return False
        frozen = account.debits_frozen if entry.amount_minor < 0 else account.credits_frozen
        return account.closed or (frozen and row_type != model.COMMITTED)

    def differences(
        self, holds: Mapping[str, Hold], reversals: Mapping[LegPlace, int]
    ) -> Iterator[tuple[int, str]]:
        """Compare with the tables."""
        for hold_id in holds.keys() | self.holds.keys():
            stored, derived = holds.get(hold_id), self.holds.get(hold_id)
            if stored != derived:
                where = (derived or stored or _NOWHERE).partition
                yield where, f"the hold {hold_id} is {stored}, its rows say {derived}"
        for place in reversals.keys() | self.reversed_minor.keys():
            stored_minor, derived_minor = reversals.get(place, 0), self.reversed_minor[place]
            if stored_minor != derived_minor:
                told = f"{stored_minor} of {place} was paid back, rows say {derived_minor}"
                yield place[0], told

    def _take_hold(self, row: Row, told: dict[str, Any]) -> Iterator[str]:
        if is_dry(row):
            return
        hold_id = told["hold_id"]
        hold = self.holds.get(hold_id)
        if row.type == model.HOLD_PLACED:
            if hold is not None or len(row.entries) != 1:
                yield f"the hold {hold_id} is placed twice, or not once"
                return
            self.holds[hold_id] = _placed(row, told)
            return
        if hold is None and row.partition in self.partial:
            return
        if hold is None or hold.partition != row.partition:
            yield f"the hold {hold_id} was never placed here"
            return
        after = _less(hold, row, told)
        if after.remaining_minor != told["remaining_minor"] or after.remaining_minor < 0:
            yield f"{after.remaining_minor} is left of {hold_id}, not {told['remaining_minor']}"
        expires_at_us = hold.expires_at_us
        if after.state == operations.EXPIRED and row.booked_at_us < (expires_at_us or 2**63):
            yield f"the hold {hold_id} expired before its time"
        self.holds[hold_id] = after

    def _take_reversal(self, row: Row, told: dict[str, Any]) -> Iterator[str]:
        if [amount for _, amount in told["legs"]] != [e.amount_minor for e in row.entries[1::2]]:
            yield "a reversal moves other amounts than it says"
        yield from self._count(row, told, 1)

    def _take_part(self, row: Row, told: dict[str, Any]) -> Iterator[str]:
        """Count what one of several homes has prepared to pay back, until it is aborted."""
        if [abs(amount) for _, amount in told["legs"]] != [
            abs(change) for change in held_changes(row).values()
        ]:
            yield "a reversal holds, or gives up, other amounts than it says"
        yield from self._count(row, told, 1 if row.type == model.PREPARED else -1)

    def _count(self, row: Row, told: dict[str, Any], sign: int) -> Iterator[str]:
        for leg, amount_minor in told["legs"]:
            place = told["partition"], told["position"], leg
            if self.payers.setdefault(place, row.partition) != row.partition:
                yield f"{place} was paid back by partition {self.payers[place]} before"
            self.reversed_minor[place] += sign * amount_minor

    def _take_flags(
        self, row: Row, told: dict[str, Any], accounts: MutableMapping[int, Account]
    ) -> Iterator[str]:
        account = accounts.get(self.numbers.get(told["account_id"], 0))
        if account is None and row.partition in self.partial:
            return
        if account is None:
            yield f"flags of {told['account_id']}, which was not opened here"
            return
        flags = {name: told[name] for name in ("debits_frozen", "credits_frozen", "closed")}
        accounts[account.account_no] = changed = replace(account, **flags)
        if changed.closed or changed.debits_frozen or changed.credits_frozen:
            self.stopped[account.account_no] = changed
        else:
            self.stopped.pop(account.account_no, None)


_NOWHERE: Final = Hold("", 0, "", "", "", 0, 0, 0, None, operations.OPEN, None)


def keeps_entries(row: Row) -> bool:
    """Tell whether this row must have entries: it changed balances, for the first time."""
    if row.type in _LINKING and row.repeats is None:
        return bool(_told(row, "linked").get("held"))
    if row.repeats is not None or (row.type not in _MOVING and row.type not in _HOLDING):
        return False
    return not is_dry(row)


def held_changes(row: Row) -> Mapping[int, int]:
    """Return by how much each entry, by its index, changes what is held."""
    if row.type in _LINKING and row.repeats is None:
        sides = 2 if row.type == model.COMMITTED else 1
        sign = 1 if row.type == model.PREPARED else -1
        held = _told(row, "linked").get("held", ())
        return {sides * n: sign * amount_minor for n, (_, amount_minor, *_) in enumerate(held)}
    if row.type not in _HOLDING or row.repeats is not None:
        return {}
    amount_minor = _told(row, "hold").get("amount_minor")
    if not isinstance(amount_minor, int):
        return {}
    return {0: amount_minor if row.type == model.HOLD_PLACED else -amount_minor}


def _told(row: Row, name: str) -> dict[str, Any]:
    """Return a part of what the row says in `extra`; nothing where that says nothing readable."""
    try:
        found = msgspec.json.decode(row.extra or "{}")
    except msgspec.DecodeError:
        return {}
    part = found.get(name) if isinstance(found, dict) else None
    return part if isinstance(part, dict) else {}


def _placed(row: Row, told: dict[str, Any]) -> Hold:
    [entry] = row.entries
    amount_minor = told["amount_minor"]
    return Hold(
        told["hold_id"],
        row.partition,
        entry.account_id,
        told["destination"],
        entry.currency,
        amount_minor,
        amount_minor,
        0,
        told["expires_at_us"],
        operations.OPEN,
        amount_minor,
    )


def _less(hold: Hold, row: Row, told: dict[str, Any]) -> Hold:
    """Return the hold as it stands after this row; `stored_minor` is what its table must have."""
    remaining_minor = hold.remaining_minor - told["amount_minor"]
    captured_minor, state = hold.captured_minor, told.get("reason", "")
    if row.type == model.HOLD_POSTED:
        captured_minor += told["amount_minor"]
        state = operations.OPEN if remaining_minor else operations.POSTED
    return replace(
        hold,
        remaining_minor=remaining_minor,
        captured_minor=captured_minor,
        state=state,
        stored_minor=remaining_minor,
    )
