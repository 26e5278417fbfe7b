"""Checks a journal by its rows alone: the chain, the sums, and every balance derived anew.

Rows of one partition are fed in order of position; what they come to is then compared with what
the other tables say. Plain transfers, which are most rows, may be offered to `Chain.take_transfer`
first: it takes those in which nothing is wrong at a fraction of the cost, and no others. Pure, and
independent of `decide`: it knows what a ledger must be, not how a decision is made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from ledger_writer.accounts import account_of
from ledger_writer.chain import link
from ledger_writer.derived import Derived, held_changes, keeps_entries
from ledger_writer.model import GENESIS, OPENED, Account, AccountDraft, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger_writer.model import Entry, Fence
    from ledger_writer.operations import Hold, LegPlace, Link, LinkKey

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

Share = tuple[int, int, int]
"""Version, posted and held."""

NO_SHARE: Share = (0, 0, 0)


class Finding(msgspec.Struct, frozen=True):
    """What is wrong, and at which row; position 0 when no row is to blame."""

    partition: int
    position: int
    problem: str


class Chain:
    """What one partition's rows come to so far: its end, and its shares by account number.

    A share is (version, posted, held). A chain that does not begin at position 1 takes an account's
    share as given when it first moves, unless it was told where it stands.
    """

    __slots__ = ("booked_at_us", "offset", "open_start", "partition", "position", "seal", "shares")

    def __init__(self, partition: int, position: int = 0, seal: bytes = GENESIS) -> None:
        self.partition = partition
        self.position = position
        self.seal = seal
        self.offset = -1
        self.booked_at_us = -(2**63)
        self.open_start = False
        self.shares: dict[int, Share] = {}

    def take_transfer(
        self,
        head: tuple[int, int, int],
        text: bytes,
        seal: bytes,
        debit: tuple[int, int, int, int, int],
        credit: tuple[int, int, int, int, int],
    ) -> bool:
        """Take a row of two entries of one currency if all is right with it; else change nothing.

        `head` is (position, offset, booked time), `text` the canonical bytes, an entry (account
        number, version, amount, posted, held).
        """
        position, offset, booked_at_us = head
        if (
            position != self.position + 1
            or offset <= self.offset
            or booked_at_us < self.booked_at_us
            or sha256(self.seal + text).digest() != seal
        ):
            return False
        payer, version, amount, posted, held = debit
        payee, its_version, its_amount, its_posted, its_held = credit
        shares = self.shares
        before = shares.get(payer, NO_SHARE)
        its_before = shares.get(payee, NO_SHARE)
        if (
            version != before[0] + 1
            or posted != before[1] + amount
            or held != before[2]
            or its_version != its_before[0] + 1
            or its_posted != its_before[1] + its_amount
            or its_held != its_before[2]
            or amount + its_amount
            or payer == payee
        ):
            return False
        shares[payer] = version, posted, held
        shares[payee] = its_version, its_posted, its_held
        self.position, self.offset, self.booked_at_us, self.seal = *head, seal
        return True


class Verifier:
    """Takes rows of all partitions, each partition's in order."""

    def __init__(self) -> None:
        self.derived = Derived()
        self.chains: dict[int, Chain] = {}
        self.accounts: dict[int, Account] = {}
        self.rows = 0
        self.entries = 0
        self.debited_minor: defaultdict[str, int] = defaultdict(int)

    @property
    def shares(self) -> dict[ShareKey, Balance]:
        """Return every share as its entries say."""
        return {
            (number, chain.partition): Balance(posted, held, version)
            for chain in self.chains.values()
            for number, (version, posted, held) in chain.shares.items()
        }

    def chain(self, partition: int) -> Chain:
        """Return what this partition's rows come to, to be taken further."""
        found = self.chains.get(partition)
        if found is None:
            found = self.chains[partition] = Chain(partition)
        return found

    def take(self, partition: int, row: Row) -> Iterator[Finding]:
        """Check one row against those before it, and add it to what is derived."""
        chain = self.chain(partition)
        for problem in self._problems(chain, row):
            yield Finding(partition, row.position, problem)
        chain.position, chain.offset = row.position, row.command_offset
        chain.booked_at_us, chain.seal = row.booked_at_us, row.chain_hash
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
        links: Mapping[LinkKey, Link] | None = None,
    ) -> Iterator[Finding]:
        """Compare what the rows come to with what the tables say."""
        versions = set()
        for fence in fences:
            versions.add(fence.accounts_version)
            for problem in _fence_problems(fence, self.chain(fence.partition)):
                yield Finding(fence.partition, fence.next_position - 1, problem)
        if len(versions) > 1:
            yield Finding(0, 0, f"fences differ in accounts_version: {sorted(versions)}")
        yield from self._share_findings(shares)
        for where, problem in self.derived.differences(holds or {}, reversals or {}):
            yield Finding(where, 0, problem)
        posted = {key: share.posted_minor for key, share in self.shares.items()}
        for where, problem in self.derived.links.differences(links or {}, self.accounts, posted):
            yield Finding(where, 0, problem)
        for number in accounts.keys() | self.accounts.keys():
            if accounts.get(number) != self.accounts.get(number):
                problem = f"account {number} is not what its rows say"
                yield Finding(number & 1023, number >> 10, problem)

    def _share_findings(self, shares: Mapping[ShareKey, Balance]) -> Iterator[Finding]:
        totals: defaultdict[int, int] = defaultdict(int)
        mine = self.shares
        for key in shares.keys() | mine.keys():
            stored, derived = shares.get(key, EMPTY), mine.get(key, EMPTY)
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

    def _problems(self, chain: Chain, row: Row) -> Iterator[str]:
        if row.partition != chain.partition or row.position != chain.position + 1:
            where = chain.position + 1
            yield f"position {row.position} of {row.partition} stands where {where} belongs"
        if link(chain.seal, row) != row.chain_hash:
            yield "the chain is broken here: this row, or its place, is not what was committed"
        if row.command_offset <= chain.offset:
            yield f"offset {row.command_offset} follows {chain.offset}"
        if row.booked_at_us < chain.booked_at_us:
            yield "booked before the row before it"
        if keeps_entries(row) != bool(row.entries):
            yield f"a {row.type} with {len(row.entries)} entries"
        sums: defaultdict[str, int] = defaultdict(int)
        held = held_changes(row)
        for index, entry in enumerate(row.entries):
            sums[entry.currency] += entry.amount_minor
            yield from self._entry_problems(chain, row.type, entry, held.get(index, 0))
        for currency, total in sums.items():
            if total:
                yield f"debits and credits differ by {total} {currency}"

    def _entry_problems(
        self, chain: Chain, row_type: str, entry: Entry, change: int
    ) -> Iterator[str]:
        self.entries += 1
        if entry.amount_minor < 0:
            self.debited_minor[entry.currency] -= entry.amount_minor
        version, posted, held = chain.shares.get(entry.account_no) or (
            _as_given(entry, change) if chain.open_start else NO_SHARE
        )
        if entry.version != version + 1:
            yield f"version {entry.version} of {entry.account_id} follows {version}"
        if entry.posted_minor != posted + entry.amount_minor:
            yield (
                f"{entry.account_id}: {posted} and {entry.amount_minor} do not make"
                f" {entry.posted_minor}"
            )
        if entry.held_minor != held + change:
            yield (f"{entry.account_id}: {held} held and {change} do not make {entry.held_minor}")
        if entry.account_no in self.derived.stopped and self.derived.forbids(
            chain.partition, entry, row_type
        ):
            yield f"{entry.account_id} is frozen or closed, and moves {entry.amount_minor}"
        chain.shares[entry.account_no] = entry.version, entry.posted_minor, entry.held_minor


def _as_given(entry: Entry, change: int) -> Share:
    """Return where a share must have stood before this entry."""
    return (
        entry.version - 1,
        entry.posted_minor - entry.amount_minor,
        entry.held_minor - change,
    )


def _fence_problems(fence: Fence, chain: Chain) -> Iterator[str]:
    """Compare a fence with its partition's last row, so far as that says what it must be."""
    if fence.next_position != chain.position + 1:
        yield f"the fence expects position {fence.next_position}, rows end at {chain.position}"
        return
    if fence.chain_hash != chain.seal:
        yield "the fence has another chain hash"
    if fence.next_offset <= chain.offset:
        yield f"the fence expects offset {fence.next_offset}, rows reach {chain.offset}"
    if fence.log_time_us != max(chain.booked_at_us, 0):
        yield f"the fence has log time {fence.log_time_us}, its last row {chain.booked_at_us}"
    if fence.published_position > chain.position:
        yield f"the fence has published {fence.published_position}, rows end at {chain.position}"


def _opened(partition: int, row: Row) -> Account | None:
    try:
        draft = msgspec.convert(row.extras().get("account"), AccountDraft)
    except (msgspec.MsgspecError, AssertionError):
        return None
    return account_of(partition, row.position, row.tenant, draft)
