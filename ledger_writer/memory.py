"""A journal in memory, for tests and simulation; same contract as the real one.

It behaves as the database does: a statement runs on the server's side once it was sent,
whatever becomes of the caller, holds the fence row while it runs, and is all or nothing. `Weather`
is where a simulation slows, cuts and loses calls. Never used by a running service.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ledger_writer.columns import account_numbers, restored, stored
from ledger_writer.memory_links import check_links, incoming_minor
from ledger_writer.model import GENESIS, Account, Decision, Fence, Row, Standing
from ledger_writer.operations import Elsewhere, Flagged, Hold, LegPlace, Link, LinkKey
from ledger_writer.port import Verdict
from schemas.errors import Corrupt, Fenced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

COLUMN_NAMES = (
    "position command_offset booked_at_us effective_at_us repeats_position attempt failed_leg"
    " repeats_partition type tenant saga_id step identity home_account transfer_id reason extra"
    " entries body_hash chain_hash"
).split()


class Weather:
    """Calm. A storm overrides these; each may sleep, and the first two may raise Unavailable."""

    async def sending(self, call: str) -> None:
        """Before the server hears of a call."""

    async def answering(self, call: str) -> None:
        """After the server is done with it, before the caller hears."""

    async def running(self, call: str) -> None:
        """On the server, while a statement holds its locks."""


class MemoryLedger:
    """The database: what all journals on it share."""

    def __init__(self) -> None:
        self.fences: dict[int, Fence] = {}
        self.accounts: dict[str, Account] = {}
        self.shares: dict[tuple[int, int], Standing] = {}
        self.holds: dict[str, Hold] = {}
        self.reversals: dict[LegPlace, int] = {}
        self.links: dict[LinkKey, Link] = {}
        self.promised: dict[str, int] = {}
        self.identities: dict[bytes, tuple[int, int]] = {}
        self.lines: dict[tuple[int, int], dict[str, Any]] = {}
        self.commits: list[Decision] = []
        self.locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    def row(self, partition: int, position: int) -> Row:
        """Return a row as it is stored."""
        line = self.lines[partition, position]
        names = {a.account_no: (a.account_id, a.currency) for a in self.accounts.values()}
        assert all(number in names for number in account_numbers(line))
        place = line["repeats_partition"], line["repeats_position"]
        repeats = None if place[1] is None else self.row(*place)
        return restored(line, names, repeats)

    def standing(self, account: Account, partition: int) -> Standing:
        """Return what a reader on this partition sees of an account."""
        foreign = sum(
            share.posted_minor
            for (number, at), share in self.shares.items()
            if number == account.account_no and at != partition
        )
        mine = self.shares.get((account.account_no, partition))
        promised = self.promised.get(account.account_id, 0)
        if mine is None:
            return Standing(account, 0, 0, 0, foreign, None, promised)
        posted, held, version = mine.posted_minor, mine.held_minor, mine.version
        return Standing(account, posted, held, version, foreign, version, promised)

    def write(self, before: Fence, after: Fence, decision: Decision) -> Verdict:
        """Do what `ledger.commit_batch` does."""
        fence = self.fences[before.partition]
        if _key(fence) != _key(before):
            raise Fenced(f"partition {before.partition}: epoch {before.epoch} is not the newest")
        if fence.accounts_version != before.accounts_version:
            return Verdict.STALE
        if any(claim.key in self.identities for claim in decision.claims) or any(
            account.account_id in self.accounts for account in decision.opened
        ):
            return Verdict.TAKEN
        if any(self._grown(flagged, before.partition) for flagged in decision.flagged):
            return Verdict.GROWN
        self._check(before, after, decision)
        self.fences[before.partition] = after
        for claim in decision.claims:
            self.identities[claim.key] = before.partition, claim.position
        for account in decision.opened:
            self.accounts[account.account_id] = account
        self._write_rare(before.partition, decision)
        for row in decision.rows:
            line = dict(zip(COLUMN_NAMES, stored(row), strict=True))
            self.lines[row.partition, row.position] = line | {"partition": row.partition}
        for standing in decision.changed:
            self.shares[standing.account.account_no, before.partition] = copy(standing)
        self.commits.append(decision)
        return Verdict.COMMITTED

    def elsewhere(self, account: Account, partition: int) -> Elsewhere:
        """Return what the other partitions' shares of an account come to."""
        shares = [
            share
            for (number, at), share in self.shares.items()
            if number == account.account_no and at != partition
        ]
        incoming = incoming_minor(self.links, account.account_id)
        posted, held = sum(s.posted_minor for s in shares), sum(s.held_minor for s in shares)
        return Elsewhere(posted, held, incoming)

    def _grown(self, flagged: Flagged, partition: int) -> bool:
        expected = flagged.elsewhere
        return expected is not None and expected != self.elsewhere(flagged.account, partition)

    def _write_rare(self, partition: int, decision: Decision) -> None:
        for hold in decision.holds:
            self.holds[hold.hold_id] = replace(hold, stored_minor=hold.remaining_minor)
        for reversal in decision.reversals:
            self.reversals[reversal.place] = reversal.reversed_minor
        for link in decision.links:
            self.links[link.link_id, link.kind] = replace(link, stored=True)
        for room in decision.rooms:
            self.promised[room.account_id] = room.promised_minor
        for flagged in decision.flagged:
            self.accounts[flagged.account.account_id] = flagged.account
        if decision.flagged:
            for number, fence in self.fences.items():
                if number != partition:
                    version = fence.accounts_version + 1
                    self.fences[number] = replace(fence, accounts_version=version)

    def _check(self, before: Fence, after: Fence, decision: Decision) -> None:
        positions = [row.position for row in decision.rows]
        if positions != list(range(before.next_position, after.next_position)):
            raise Corrupt("rows do not follow the fence")
        for hold in decision.holds:
            kept = self.holds.get(hold.hold_id)
            mine = kept is None or kept.partition == before.partition
            if not mine or hold.stored_minor != (None if kept is None else kept.remaining_minor):
                raise Corrupt("a hold is not as known")
        for reversal in decision.reversals:
            if self.reversals.get(reversal.place, 0) != reversal.stored_minor:
                raise Corrupt("a reversal is not as known")
        check_links(decision, self.links, self.promised)
        for standing in decision.changed:
            known = self.shares.get((standing.account.account_no, before.partition))
            if standing.stored_version != (None if known is None else known.version):
                raise Corrupt("a share is not at the version known")
            floor = standing.account.min_balance_minor
            total = standing.posted_minor - standing.held_minor + standing.foreign_minor
            if standing.account.home == before.partition and floor is not None and total < floor:
                raise Corrupt("a share is below its floor")


class MemoryJournal:
    """One connection; see `port.Journal`."""

    def __init__(self, ledger: MemoryLedger, weather: Weather) -> None:
        self._ledger = ledger
        self._weather = weather
        self._statements: set[asyncio.Task[Any]] = set()

    async def acquire(self, partition: int, held_epoch: int | None) -> Fence:
        """Raise the epoch; waits for a statement that holds the fence."""
        await self._weather.sending("acquire")
        async with self._ledger.locks[partition]:
            fence = self._ledger.fences.get(partition)
            if fence is None:
                versions = [each.accounts_version for each in self._ledger.fences.values()]
                version = max(versions, default=0)
                fence = Fence(partition, 0, 0, 0, 1, GENESIS, 0, 0, version)
            if held_epoch is not None and fence.epoch != held_epoch:
                raise Fenced(f"partition {partition}: epoch {held_epoch} is not the newest")
            fence = self._ledger.fences[partition] = replace(fence, epoch=fence.epoch + 1)
        await self._weather.answering("acquire")
        return fence

    async def fence(self, partition: int) -> Fence:
        """Return the fence as it is."""
        await self._weather.sending("fence")
        return self._ledger.fences[partition]

    async def standings(self, partition: int, account_ids: Sequence[str]) -> dict[str, Standing]:
        """Return what is known of those of these accounts that exist."""
        await self._weather.sending("standings")
        accounts = self._ledger.accounts
        found = {
            account_id: self._ledger.standing(accounts[account_id], partition)
            for account_id in account_ids
            if account_id in accounts
        }
        await self._weather.answering("standings")
        return found

    async def foreign(self, partition: int, account_ids: Sequence[str]) -> dict[str, int]:
        """Return the sum of the other partitions' shares."""
        found = await self.standings(partition, account_ids)
        return {account_id: standing.foreign_minor for account_id, standing in found.items()}

    async def elsewhere(self, partition: int, account_ids: Sequence[str]) -> dict[str, Elsewhere]:
        """Return what the other partitions' shares of these accounts come to."""
        await self._weather.sending("elsewhere")
        accounts = self._ledger.accounts
        found = {
            account_id: self._ledger.elsewhere(accounts[account_id], partition)
            for account_id in account_ids
            if account_id in accounts
        }
        await self._weather.answering("elsewhere")
        return found

    async def holds(self, hold_ids: Sequence[str]) -> dict[str, Hold]:
        """Return those of these holds that exist."""
        await self._weather.sending("holds")
        kept = self._ledger.holds
        found = {hold_id: kept[hold_id] for hold_id in hold_ids if hold_id in kept}
        await self._weather.answering("holds")
        return found

    async def links(self, link_ids: Sequence[str]) -> dict[LinkKey, Link]:
        """Return those of these links that exist."""
        await self._weather.sending("links")
        wanted = set(link_ids)
        found = {key: link for key, link in self._ledger.links.items() if key[0] in wanted}
        await self._weather.answering("links")
        return found

    async def reversals(self, places: Sequence[tuple[int, int]]) -> dict[LegPlace, int]:
        """Return how much was paid back of each leg of the rows at these places."""
        await self._weather.sending("reversals")
        wanted = set(places)
        kept = self._ledger.reversals.items()
        return {place: minor for place, minor in kept if place[:2] in wanted}

    async def first_rows(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """Return the rows that claimed those of these keys that are claimed."""
        await self._weather.sending("first_rows")
        places = self._ledger.identities
        return {key: self._ledger.row(*places[key]) for key in keys if key in places}

    async def rows(self, partition: int, first: int, count: int) -> list[Row]:
        """Return rows in order of position."""
        await self._weather.sending("rows")
        wanted = [(partition, position) for position in range(first, first + count)]
        return [self._ledger.row(*place) for place in wanted if place in self._ledger.lines]

    async def commit(self, before: Fence, after: Fence, decision: Decision) -> Verdict:
        """Send the statement; it runs to its end even if the caller does not wait for it."""
        await self._weather.sending("commit")
        statement = asyncio.create_task(self._statement(before, after, decision))
        self._statements.add(statement)
        statement.add_done_callback(self._ended)
        await self._weather.answering("commit")
        return await asyncio.shield(statement)

    def _ended(self, statement: asyncio.Task[Any]) -> None:
        self._statements.discard(statement)
        if not statement.cancelled():
            statement.exception()  # the caller may have gone: nobody else looks at it

    async def _statement(self, before: Fence, after: Fence, decision: Decision) -> Verdict:
        async with self._ledger.locks[before.partition]:
            await self._weather.running("commit")
            return self._ledger.write(before, after, decision)


class MemoryJournals:
    """Opens connections to one ledger."""

    def __init__(self, ledger: MemoryLedger, weather: Weather | None = None) -> None:
        self._ledger = ledger
        self._weather = weather or Weather()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[MemoryJournal]:
        """Connect."""
        await self._weather.sending("connect")
        yield MemoryJournal(self._ledger, self._weather)


def _key(fence: Fence) -> tuple[int, int, int]:
    return fence.epoch, fence.next_offset, fence.next_position
