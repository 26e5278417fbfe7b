"""Checks a journal by its rows alone: the chain, the sums, and every balance derived anew.

Rows of one partition are fed in order of position; what they come to is then compared with what
the other tables say. Pure, and independent of `decide`: it knows what a ledger must be, not how a
decision is made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from ledger_writer.accounts import account_of
from ledger_writer.chain import link
from ledger_writer.derived import Derived, held_changes, keeps_entries
from ledger_writer.model import GENESIS, OPENED, Account, AccountDraft, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger_writer.model import Fence
    from ledger_writer.operations import Hold, LegPlace

FINDINGS_MAX = 20
"""A broken chain breaks everything after it: more findings tell nothing new."""

ShareKey = tuple[int, int]
"""Account number and share."""


class Balance(msgspec.Struct, frozen=True, gc=False):
    """A share's state."""

    posted_minor: int
    held_minor: int
    version: int


EMPTY = Balance(0, 0, 0)


class Finding(msgspec.Struct, frozen=True):
    """What is wrong, and at which row; position 0 when no row is to blame."""

    partition: int
    position: int
    problem: str


class Verifier:
    """Takes rows of all partitions, each partition's in order."""

    def __init__(self) -> None:
        self.derived = Derived()
        self.shares: dict[ShareKey, Balance] = {}
        self.accounts: dict[int, Account] = {}
        self.rows = 0
        self.entries = 0
        self.debited_minor: defaultdict[str, int] = defaultdict(int)
        self._last: dict[int, Row] = {}

    def take(self, partition: int, row: Row) -> Iterator[Finding]:
        """Check one row against those before it, and add it to what is derived."""
        before = self._last.get(partition)
        for problem in self._problems(partition, before, row):
            yield Finding(partition, row.position, problem)
        self._last[partition] = row
        self.rows += 1
        if row.type == OPENED and row.repeats is None:
            account = _opened(partition, row)
            if account is None:
                yield Finding(partition, row.position, "opens an account and does not say which")
            else:
                self.accounts[account.account_no] = account
                self.derived.numbers[account.account_id] = account.account_no
        elif row.extra is not None and row.repeats is None and row.reason is None:
            for problem in self.derived.take(row, self.accounts):
                yield Finding(partition, row.position, problem)

    def close(
        self,
        fences: Iterable[Fence],
        shares: Mapping[ShareKey, Balance],
        accounts: Mapping[int, Account],
        *,
        holds: Mapping[str, Hold] | None = None,
        reversals: Mapping[LegPlace, int] | None = None,
    ) -> Iterator[Finding]:
        """Compare what the rows come to with what the tables say."""
        for fence in fences:
            last = self._last.get(fence.partition)
            end = 0 if last is None else last.position
            if fence.next_position != end + 1:
                problem = f"the fence expects position {fence.next_position}, rows end at {end}"
                yield Finding(fence.partition, end, problem)
            elif fence.chain_hash != (GENESIS if last is None else last.chain_hash):
                yield Finding(fence.partition, end, "the fence has another chain hash")
        yield from self._share_findings(shares)
        for where, problem in self.derived.differences(holds or {}, reversals or {}):
            yield Finding(where, 0, problem)
        for number in accounts.keys() | self.accounts.keys():
            if accounts.get(number) != self.accounts.get(number):
                problem = f"account {number} is not what its rows say"
                yield Finding(number & 1023, number >> 10, problem)

    def _share_findings(self, shares: Mapping[ShareKey, Balance]) -> Iterator[Finding]:
        totals: defaultdict[int, int] = defaultdict(int)
        for key in shares.keys() | self.shares.keys():
            stored, derived = shares.get(key, EMPTY), self.shares.get(key, EMPTY)
            totals[key[0]] += derived.posted_minor - derived.held_minor
            if stored != derived:
                problem = f"the share of account {key[0]} is {stored}, its entries say {derived}"
                yield Finding(key[1], 0, problem)
        for number, total in totals.items():
            account = self.accounts.get(number)
            if account is None:
                yield Finding(number & 1023, 0, f"account {number} was never opened")
            elif account.min_balance_minor is not None and total < account.min_balance_minor:
                problem = f"{account.account_id} has {total}, below {account.min_balance_minor}"
                yield Finding(account.home, 0, problem)
            elif account.closed and total:
                yield Finding(account.home, 0, f"{account.account_id} is closed and has {total}")

    def _problems(self, partition: int, before: Row | None, row: Row) -> Iterator[str]:
        expected = 1 if before is None else before.position + 1
        if row.partition != partition or row.position != expected:
            yield f"position {row.position} of {row.partition} stands where {expected} belongs"
        if link(GENESIS if before is None else before.chain_hash, row) != row.chain_hash:
            yield "the chain is broken here: this row, or its place, is not what was committed"
        if before is not None and row.command_offset <= before.command_offset:
            yield f"offset {row.command_offset} follows {before.command_offset}"
        if before is not None and row.booked_at_us < before.booked_at_us:
            yield "booked before the row before it"
        yield from self._entry_problems(partition, row)

    def _entry_problems(self, partition: int, row: Row) -> Iterator[str]:
        if keeps_entries(row) != bool(row.entries):
            yield f"a {row.type} with {len(row.entries)} entries"
        sums: defaultdict[str, int] = defaultdict(int)
        held = held_changes(row)
        for index, entry in enumerate(row.entries):
            self.entries += 1
            sums[entry.currency] += entry.amount_minor
            if entry.amount_minor < 0:
                self.debited_minor[entry.currency] -= entry.amount_minor
            key = entry.account_no, partition
            share = self.shares.get(key, EMPTY)
            if entry.version != share.version + 1:
                yield f"version {entry.version} of {entry.account_id} follows {share.version}"
            if entry.posted_minor != share.posted_minor + entry.amount_minor:
                yield (
                    f"{entry.account_id}: {share.posted_minor} and {entry.amount_minor} do not make"
                    f" {entry.posted_minor}"
                )
            change = held.get(index, 0)
            if entry.held_minor != share.held_minor + change:
                yield (
                    f"{entry.account_id}: {share.held_minor} held and {change} do not make"
                    f" {entry.held_minor}"
                )
            if entry.account_no in self.derived.stopped and self.derived.forbids(partition, entry):
                yield f"{entry.account_id} is frozen or closed, and moves {entry.amount_minor}"
            self.shares[key] = Balance(entry.posted_minor, entry.held_minor, entry.version)
        for currency, total in sums.items():
            if total:
                yield f"debits and credits differ by {total} {currency}"


def _opened(partition: int, row: Row) -> Account | None:
    try:
        draft = msgspec.convert(row.extras().get("account"), AccountDraft)
    except msgspec.ValidationError:
        return None
    return account_of(partition, row.position, row.tenant, draft)
