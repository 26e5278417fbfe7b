"""The ledger under a seeded storm: crashes, lost answers, zombies, slow servers, clock jumps.

Real writers run on a journal and a log in memory, on a loop whose time is virtual, so a run depends
on its seed alone. What must hold is checked at every commit and at the end by code that knows
nothing of how decisions are made. Each canary is a bug put in on purpose: some seed must find it.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from ledger_writer import memory, settle
from ledger_writer.event import EVENTS, event_bytes
from ledger_writer.intake import read_records
from ledger_writer.memory import MemoryJournals, MemoryLedger, MemoryLog, MemoryLogs, MemoryTopics
from ledger_writer.model import Command, Decision, Fence
from ledger_writer.partition import Partition
from ledger_writer.port import Record, Verdict
from ledger_writer.samples import account_on, open_account, reject, transfer
from ledger_writer.verify import Balance, Verifier
from schemas.errors import HeadraceError, Unavailable
from schemas.wire import decode, encode

PARTITIONS = 2
SEEDS = [*range(200), 1248]  # 1248: overtaken between its fence and its look at the events
CANARY_SEEDS = 60
SETTLE_LOOKS, SETTLE_EVERY_S = 600, 0.5
CUSTOMERS = [account_on(number % 2, PARTITIONS, skip=number // 2) for number in range(6)]
BANKS = [account_on(number, PARTITIONS, "external") for number in range(2)]


# -- a loop whose time is virtual ----------------------------------------------------------------


class _Skipping(selectors.DefaultSelector):
    """Does not wait: what would have been waited for is added to the clock."""

    now = 0.0

    def select(self, timeout=None):
        assert timeout is not None, "everything waits for everything"
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


# -- the storm -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Knobs:
    """Drawn per seed, so that each run is a storm of its own kind."""

    commands: int
    batch_max: int
    cut_before: float
    cut_after: float
    slow_server: float
    pause: float
    crash_every_s: float
    second_writer: float
    poison: float
    repeat: float
    conflict: float
    clock_jump: float

    @classmethod
    def drawn(cls, rng: random.Random) -> Knobs:
        def maybe(high: float) -> float:
            return rng.choice([0.0, rng.uniform(0, high)])

        return cls(
            commands=rng.randint(30, 120),
            batch_max=rng.choice([1, 3, 10, 100]),
            cut_before=maybe(0.1),
            cut_after=maybe(0.2),
            slow_server=maybe(0.3),
            pause=maybe(0.05),
            crash_every_s=rng.choice([0.1, 0.5, 3.0, 1e9]),
            second_writer=maybe(0.7),
            poison=maybe(0.1),
            repeat=maybe(0.3),
            conflict=maybe(0.3),
            clock_jump=maybe(0.3),
        )


class Storm(memory.Weather):
    """One writer's weather; over when the world is calm."""

    def __init__(self, rng: random.Random, knobs: Knobs) -> None:
        self._rng, self._knobs = rng, knobs
        self.calm = False

    async def sending(self, call: str) -> None:
        await self._travel()
        if self._happens(self._knobs.cut_before):
            raise Unavailable(f"{call} was never sent")

    async def answering(self, call: str) -> None:
        if self._happens(self._knobs.cut_after):
            await self._travel()
            raise Unavailable(f"{call} has no answer")
        await self._travel()

    async def running(self, call: str) -> None:
        del call
        if self._happens(self._knobs.slow_server):
            await asyncio.sleep(self._rng.uniform(0, 2))

    async def _travel(self) -> None:
        await asyncio.sleep(self._rng.choice([0, 0.001, 0.01]))
        if self._happens(self._knobs.pause):
            await asyncio.sleep(self._rng.uniform(1, 20))

    def _happens(self, chance: float) -> bool:
        return not self.calm and self._rng.random() < chance


# -- what must hold ------------------------------------------------------------------------------


class WatchedLedger(MemoryLedger):
    """Checks at every commit, with knowledge of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.verifier = Verifier()
        self.commands: dict[tuple[int, int], Command] = {}
        self.foreign_at_take: dict[int, dict[str, int]] = {}
        self.written = Counter()

    def write(self, before: Fence, after: Fence, decision: Decision) -> Verdict:
        verdict = super().write(before, after, decision)
        if verdict is Verdict.COMMITTED:
            self._check_refusals(before.partition, decision)
            for row in decision.rows:
                self.written[row.partition, row.command_offset] += 1
                findings = list(self.verifier.take(row.partition, row))
                assert not findings, findings
            self._check_balances()
        return verdict

    def _check_balances(self) -> None:
        total = 0
        for account in self.accounts.values():
            balance = sum(
                share.posted_minor
                for (number, _), share in self.shares.items()
                if number == account.account_no
            )
            total += balance
            floor = account.min_balance_minor
            assert floor is None or balance >= floor, f"{account.account_id} has {balance}"
        assert total == 0

    def _check_refusals(self, partition: int, decision: Decision) -> None:
        """A refusal for want of funds is right only if there were too few when it was taken."""
        own = {
            a.account_id: self.verifier.shares.get((a.account_no, partition))
            for a in self.accounts.values()
        }
        balances = {name: share.posted_minor if share else 0 for name, share in own.items()}
        for row in decision.rows:
            for entry in row.entries:
                balances[entry.account_id] = entry.posted_minor
            if row.reason == "insufficient_funds" and row.repeats is None:
                legs = self.commands[partition, row.command_offset].legs
                if len(legs) > 1:
                    continue
                source = legs[0].source
                foreign = self.foreign_at_take[partition].get(source, 0)
                floor = self.accounts[source].min_balance_minor
                assert balances[source] + foreign - legs[0].amount_minor < floor, "refused wrongly"


class WatchedLog(MemoryLog):
    """Notes what was true when records were taken."""

    async def take(self, records_max: int) -> list[Record]:
        found = await super().take(records_max)
        ledger = self._topics.ledger
        ledger.foreign_at_take[self._partition] = {
            account.account_id: ledger.standing(account, self._partition).foreign_minor
            for account in ledger.accounts.values()
        }
        return found


class World:
    """One storm: its database, its broker, its writers."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.knobs = Knobs.drawn(self.rng)
        self.ledger, self.topics = WatchedLedger(), MemoryTopics()
        self.topics.ledger = self.ledger
        self.storms: list[Storm] = []
        self.writers: dict[int, list[asyncio.Task[None]]] = defaultdict(list)
        self.log_ms = 1_700_000_000_000
        self.crashes = 0

    async def run(self) -> None:
        """Open accounts in peace, then storm while commands arrive, then let it calm down."""
        feeding = asyncio.create_task(self._feed())
        crashing = asyncio.create_task(self._crash())
        for number in range(PARTITIONS):
            self._start(number)
        await feeding
        crashing.cancel()
        for storm in self.storms:
            storm.calm = True
        await self._settle()
        for task in [task for tasks in self.writers.values() for task in tasks]:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._prove()

    # -- what happens ----------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        storm = Storm(self.rng, self.knobs)
        self.storms.append(storm)
        journals = MemoryJournals(self.ledger, storm)
        logs = MemoryLogs(self.topics, storm)
        writer = Partition(number, PARTITIONS, journals, logs, batch_max=self.knobs.batch_max)
        self.writers[number].append(asyncio.create_task(writer.run()))

    async def _crash(self) -> None:
        """End a writer where it stands, or leave it running as a zombie; start another."""
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / self.knobs.crash_every_s))
            number = self.rng.randrange(PARTITIONS)
            self.crashes += 1
            if self.rng.random() > self.knobs.second_writer:
                for task in self.writers[number]:
                    task.cancel()
            self._start(number)

    async def _feed(self) -> None:
        for account_id in [*BANKS, *CUSTOMERS]:
            self._append(int(account_id[6:9], 16) % PARTITIONS, open_account(account_id))
        records = []
        for number in range(self.knobs.commands):
            await asyncio.sleep(self.rng.choice([0, 0, 0.01, 0.1]))
            record = self._command(number, records)
            records.append(record)
            if self.rng.random() < self.knobs.poison:
                self._append(self.rng.randrange(PARTITIONS), b"\0poison")
            self._append(record["slot"] % PARTITIONS, record)

    def _command(self, number: int, before: list[dict]) -> dict:
        rng, key = self.rng, f"key-{number}"
        if before and rng.random() < self.knobs.repeat:
            return rng.choice(before)
        if before and rng.random() < self.knobs.conflict:
            key = f"key-{rng.randrange(number)}"
        payer, payee, third = rng.sample(CUSTOMERS, 3)
        amount = rng.randint(1, 60)
        match rng.randrange(8):
            case 0 | 1 | 2:
                return transfer(key, (rng.choice(BANKS), payer, amount))
            case 3:
                return transfer(key, (payer, payee, amount), (payer, third, amount))
            case 4:
                return reject(key, payer, "velocity_limit")
            case _:
                return transfer(key, (payer, payee, amount))

    def _append(self, partition: int, record: dict | bytes) -> None:
        log, rng = self.topics.commands[partition], self.rng
        offset = max(log[-1].offset + 1, self.topics.ends[partition]) if log else 0
        self.topics.ends[partition] = offset + rng.choice([1, 1, 2])
        self.log_ms += 1
        jump = rng.randint(-100_000, 100_000) if rng.random() < self.knobs.clock_jump else 0
        raw = isinstance(record, bytes)
        value = record if raw else encode("ledger.commands", record)
        made = Record(offset, self.log_ms + jump, b"key", value, ())
        log.append(made)
        if not raw:
            self.ledger.commands[partition, offset] = read_records([made]).commands[0]

    async def _settle(self) -> None:
        """With the weather calm, one writer each brings everything to its end."""
        for number in range(PARTITIONS):
            self._start(number)
        for storm in self.storms:
            storm.calm = True
        for _ in range(SETTLE_LOOKS):
            if all(self._done(number) for number in range(PARTITIONS)):
                return
            for task in [task for tasks in self.writers.values() for task in tasks]:
                if task.done() and not task.cancelled() and task.exception():
                    raise task.exception()
            await asyncio.sleep(SETTLE_EVERY_S)
        raise AssertionError("it never settles")

    def _done(self, number: int) -> bool:
        records, fence = self.topics.commands[number], self.ledger.fences.get(number)
        if fence is None or (records and fence.next_offset <= records[-1].offset):
            return False
        shown = {decode(EVENTS, event.value)["position"] for event in self.topics.events[number]}
        return shown == set(range(1, fence.next_position))

    # -- what must be true at the end ------------------------------------------------------------

    def _prove(self) -> None:
        self._prove_records()
        self._prove_identities()
        self._prove_events()
        shares = {
            key: Balance(share.posted_minor, share.held_minor, share.version)
            for key, share in self.ledger.shares.items()
        }
        accounts = {account.account_no: account for account in self.ledger.accounts.values()}
        found = list(self.ledger.verifier.close(self.ledger.fences.values(), shares, accounts))
        assert not found, found

    def _prove_records(self) -> None:
        """Each record has exactly one row, or was buried at least once and has none."""
        for number, records in self.topics.commands.items():
            buried = {record.offset for record, _ in self.topics.buried[number]}
            for record in records:
                rows = self.ledger.written[number, record.offset]
                assert rows == (0 if record.offset in buried else 1)
            poisoned = sum(record.value == b"\0poison" for record in records)
            assert self.ledger.fences[number].poisoned == poisoned == len(buried)

    def _prove_identities(self) -> None:
        """Over all partitions, an identity has one outcome; all else repeats or is refused."""
        rows = [self.ledger.row(*place) for place in self.ledger.lines]
        by_identity = defaultdict(list)
        for row in rows:
            by_identity[row.identity].append(row)
        for used in by_identity.values():
            claimed = [
                row
                for row in used
                if row.repeats is None and row.reason != "idempotency_key_reused"
            ]
            assert len(claimed) == 1, used
            for row in used:
                if row.repeats is not None:
                    assert row.body_hash == claimed[0].body_hash
                    assert (row.type, row.reason) == (claimed[0].type, claimed[0].reason)

    def _prove_events(self) -> None:
        """Every published event is its row's, and none is ahead of its order."""
        for number, events in self.topics.events.items():
            highest = 0
            for event in events:
                position = decode(EVENTS, event.value)["position"]
                assert event.value == event_bytes(self.ledger.row(number, position))
                assert position <= highest + 1
                highest = max(highest, position)


def simulate(seed: int) -> World:
    loop = VirtualLoop()
    try:
        world = World(seed)
        loop.run_until_complete(asyncio.wait_for(world.run(), 100_000))
        return world
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()


@pytest.fixture(autouse=True)
def watched(monkeypatch):
    monkeypatch.setattr(memory, "MemoryLog", WatchedLog)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_the_storm_nothing_is_lost_or_doubled(seed):
    print(f"seed {seed}")
    simulate(seed)


def test_a_seed_gives_the_same_run_twice():
    one, two = simulate(7), simulate(7)
    assert one.ledger.lines == two.ledger.lines
    assert one.topics.events == two.topics.events
    assert one.crashes == two.crashes


# -- bugs put in on purpose ----------------------------------------------------------------------


@contextmanager
def fence_forgotten():
    """A commit that does not look at the fence."""
    key = memory._key
    memory._key = lambda fence: fence.partition
    yield
    memory._key = key


@contextmanager
def shares_not_read_again():
    """A refusal on what was known some time ago."""
    look = settle.Settler._look_again

    async def blind(self, standings, doubted):
        return False

    settle.Settler._look_again = blind
    yield
    settle.Settler._look_again = look


@contextmanager
def claims_ignored():
    """A key used on another partition is not found out."""
    write = MemoryLedger.write

    def careless(self, before, after, decision):
        claims = [claim for claim in decision.claims if claim.key not in self.identities]
        return write(self, before, after, replace(decision, claims=claims))

    MemoryLedger.write = careless
    yield
    MemoryLedger.write = write


@contextmanager
def gap_not_filled():
    """What was committed and not published stays unpublished."""
    fill = Partition._fill_gap

    async def lazy(self, journal, log, fence):
        self._published = fence.next_position - 1

    Partition._fill_gap = lazy
    yield
    Partition._fill_gap = fill


@contextmanager
def offset_left_behind():
    """The fence does not follow the records."""
    advanced = settle.advanced

    def short(fence, decision, intake, published):
        after = advanced(fence, decision, intake, published)
        return replace(after, next_offset=max(fence.next_offset, after.next_offset - 1))

    settle.advanced = short
    yield
    settle.advanced = advanced


CANARIES = [
    fence_forgotten,
    shares_not_read_again,
    claims_ignored,
    gap_not_filled,
    offset_left_behind,
]


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.__name__)
def test_each_canary_is_found(canary):
    with canary():
        for seed in range(CANARY_SEEDS):
            try:
                simulate(seed)
            except (AssertionError, HeadraceError, TimeoutError):
                return
    pytest.fail(f"{CANARY_SEEDS} seeds did not find it")
