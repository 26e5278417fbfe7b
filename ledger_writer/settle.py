"""Brings one batch to a commit: look up what it names, decide, and decide again where need be.

Again is needed when a refusal rested on foreign shares that have grown since, when a key turns
out to be another writer's, or when an account's flags changed. Each round knows more than the one
before, and only the last one is written.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ledger_writer.command import CLOSE, STEPPING
from ledger_writer.decide import decide
from ledger_writer.identity import claim_key, key_of
from ledger_writer.knowledge import Knowledge
from ledger_writer.linked import agreement, link_id
from ledger_writer.metrics import meters
from ledger_writer.model import HOLD_PLACED, PREPARED, Standing, View
from ledger_writer.operations import Known
from ledger_writer.port import Verdict
from schemas.errors import Corrupt, Unavailable
from schemas.ids import identity_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ledger_writer.crash import CrashPoint
    from ledger_writer.intake import Intake
    from ledger_writer.model import Command, Decision, Fence, Row
    from ledger_writer.port import Journal

ROUNDS_MAX: Final = 50
"""Bound of the rounds of one batch; more means that others claim faster than we can look."""

_NOTHING: Final = Known()


class Settler:
    """Settles the batches of one session, and keeps what it knows between them."""

    def __init__(
        self, partition: int, partitions: int, journal: Journal, crash: CrashPoint
    ) -> None:
        self._partition = partition
        self._partitions = partitions
        self._journal = journal
        self._crash = crash
        self._meters = meters(partition)
        self._knowledge = Knowledge()
        self._expect_taken = False

    async def settle(
        self, fence: Fence, intake: Intake, published_position: int
    ) -> tuple[Fence, Decision]:
        """Commit the batch; return the fence after it and what was decided."""
        stages = self._meters.stages
        claims: Mapping[bytes, Row] = {}
        if self._expect_taken and intake.commands:
            claims = await self._claims(intake.commands)
            self._expect_taken = bool(claims)
        for _ in range(ROUNDS_MAX):
            decision = await self._decided(fence, intake.commands, claims)
            self._crash.at("after_decide")
            after = advanced(fence, decision, intake, published_position)
            with stages["commit"].time():
                verdict = await self._journal.commit(fence, after, decision)
            if verdict is Verdict.COMMITTED:
                now_s = time.perf_counter()
                self._show_staleness(decision, now_s)
                settle = self._knowledge.settle
                settle(decision.changed, decision.flagged, decision.rooms, at_s=now_s)
                return after, decision
            self._meters.again(verdict.value)
            self._crash.at("after_refused")
            if verdict is Verdict.TAKEN:
                claims = await self._claims(intake.commands)
                self._expect_taken = True
            elif verdict is Verdict.STALE:
                fence = await self._flags_changed(fence)
                if claims:  # the first outcomes may have been detached meanwhile
                    claims = await self._claims(intake.commands)
        raise Unavailable(f"partition {self._partition}: {ROUNDS_MAX} rounds settled no batch")

    async def _decided(
        self, fence: Fence, commands: Sequence[Command], claims: Mapping[bytes, Row]
    ) -> Decision:
        """Decide, and again for as long as a refusal rests on shares that have grown since."""
        stages = self._meters.stages
        with stages["look"].time():
            known = await self._look_rare(commands)
            standings, fresh = await self._look(_named(commands, known))
        self._crash.at("after_look")
        while True:
            view = View(
                self._partition,
                self._partitions,
                fence.next_position,
                fence.log_time_us,
                fence.chain_hash,
                standings,
                claims,
                fresh,
                known,
            )
            with stages["decide"].time():
                decision = decide(view, commands)
            if not decision.doubted:
                return decision
            fresh |= decision.doubted
            if not await self._look_again(standings, sorted(decision.doubted)):
                return decision
            self._meters.again("shares grew")

    async def _look_rare(self, commands: Sequence[Command]) -> Known:
        """Read the holds, originals and closings of this batch; most batches have none."""
        rare = [c for c in commands if c.hold or c.reversal or c.flags or c.type in STEPPING]
        if not rare:
            return _NOTHING
        journal = self._journal
        keys = {key_of(identity_of(c.reversal.original_id)) for c in rare if c.reversal}
        originals = await journal.first_rows(list(keys)) if keys else {}
        places = sorted({(row.partition, row.position) for row in originals.values()})
        hold_ids = {c.hold.hold_id for c in rare if c.hold and not c.legs}
        hold_ids |= {_hold_id(row) for row in originals.values() if row.type == HOLD_PLACED}
        link_ids = [
            link_id(agreed_on, index)
            for agreed_on, legs in _linked(rare, originals.values())
            for index in range(legs)
        ]
        closing = sorted({c.flags.account_id for c in rare if c.flags and c.type == CLOSE})
        # Totals of reversals last: what was moved may only have grown since it was read.
        return Known(
            holds=await journal.holds(sorted(hold_ids)) if hold_ids else {},
            originals=originals,
            elsewhere=await journal.elsewhere(self._partition, closing) if closing else {},
            links=await journal.links(link_ids) if link_ids else {},
            reversed_minor=await journal.reversals(places) if places else {},
        )

    async def _look(self, named: Iterable[str]) -> tuple[dict[str, Standing], set[str]]:
        standings, missing = self._knowledge.recall(named)
        if missing:
            began_s = time.perf_counter()
            found = await self._journal.standings(self._partition, missing)
            self._knowledge.learn(found, began_s)
            standings.update(found)
        return standings, set(missing)

    async def _look_again(self, standings: Mapping[str, Standing], doubted: Sequence[str]) -> bool:
        """Read foreign shares anew; tell whether any has grown."""
        self._meters.looks.inc(len(doubted))
        self._knowledge.read_again(doubted, time.perf_counter())
        with self._meters.stages["look"].time():
            found = await self._journal.foreign(self._partition, doubted)
        grown = False
        for account_id, foreign_minor in found.items():
            standing = standings.get(account_id)
            if standing is None or standing.foreign_minor == foreign_minor:
                continue
            if foreign_minor < standing.foreign_minor:
                raise Corrupt(f"{account_id}: another partition's share of it has shrunk")
            standing.foreign_minor = foreign_minor
            grown = True
        return grown

    def _show_staleness(self, decision: Decision, now_s: float) -> None:
        oldest_s = self._knowledge.oldest_s(decision.changed, self._partition, now_s)
        if oldest_s is not None:
            self._meters.staleness.observe(now_s - oldest_s)

    async def _claims(self, commands: Sequence[Command]) -> dict[bytes, Row]:
        return await self._journal.first_rows([claim_key(command) for command in commands])

    async def _flags_changed(self, fence: Fence) -> Fence:
        """Learn the new number before accounts are read again, never after."""
        current = await self._journal.fence(self._partition)
        self._knowledge.forget()
        return replace(fence, accounts_version=current.accounts_version)


def advanced(fence: Fence, decision: Decision, intake: Intake, published_position: int) -> Fence:
    """Return the fence as it stands once the batch is committed."""
    return replace(
        fence,
        next_offset=intake.next_offset,
        log_time_us=decision.log_time_us,
        next_position=decision.next_position,
        chain_hash=decision.chain_hash,
        published_position=published_position,
        poisoned=fence.poisoned + len(intake.dead),
        accounts_version=fence.accounts_version + bool(decision.flagged),
    )


def _named(commands: Sequence[Command], known: Known) -> Iterable[str]:
    """Return the accounts that a batch names, by itself and by what it refers to; each once."""
    named: dict[str, None] = {}
    for command in commands:
        for leg in command.legs:
            named[leg.source] = named[leg.destination] = None
        if command.draft is not None:
            named[command.draft.account_id] = None
        if command.flags is not None:
            named[command.flags.account_id] = None
    for hold in known.holds.values():
        named[hold.source] = named[hold.destination] = None
    for link in known.links.values():
        named[link.source] = named[link.destination] = None
    for row in known.originals.values():
        for entry in row.entries:
            named[entry.account_id] = None
    return named


def _linked(commands: Iterable[Command], originals: Iterable[Row]) -> Iterable[tuple[str, int]]:
    """Return what several homes agree on that is stepped on or paid back, and how many legs."""
    for command in commands:
        if command.type in STEPPING:
            yield agreement(command), len(command.legs)
    for row in originals:
        if row.type == PREPARED:
            yield row.saga_id, row.extras()["linked"]["legs"]


def _hold_id(placed: Row) -> str:
    hold_id = placed.extras()["hold"]["hold_id"]
    assert isinstance(hold_id, str)
    return hold_id
