"""The writer's loop on a journal and a log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from ledger_writer.event import EVENTS, event_bytes
from ledger_writer.identity import claim_key
from ledger_writer.intake import read_records
from ledger_writer.memory import MemoryJournals, MemoryLedger, Weather
from ledger_writer.memory_log import MemoryLog, MemoryLogs, MemoryTopics
from ledger_writer.model import Command
from ledger_writer.partition import Partition
from ledger_writer.port import Record
from ledger_writer.samples import account_on, open_account, transfer
from schemas.errors import Corrupt, Unavailable
from schemas.wire import decode, encode

PARTITIONS = 2
ALICE, BOB = account_on(0, PARTITIONS), account_on(1, PARTITIONS)
BANK = account_on(0, PARTITIONS, "external")


class World:
    """One database, one broker, and writers."""

    def __init__(self, weather: Weather | None = None) -> None:
        self.ledger, self.topics = MemoryLedger(), MemoryTopics()
        self.weather = weather or Weather()
        self.tasks: list[asyncio.Task[None]] = []

    def send(self, partition: int, *records: dict | bytes | None, gap: int = 1) -> None:
        log = self.topics.commands[partition]
        for record in records:
            value = encode("ledger.commands", record) if isinstance(record, dict) else record
            offset = log[-1].offset + gap if log else 0
            trace = (("traceparent", b"00-%d" % offset),)
            log.append(Record(offset, 1_000 + offset, b"key", value, trace))

    def writer(
        self, number: int, batch_max: int = 100, weather: Weather | None = None
    ) -> Partition:
        journals = MemoryJournals(self.ledger, weather or self.weather)
        logs = MemoryLogs(self.topics, weather or self.weather)
        return Partition(number, PARTITIONS, journals, logs, batch_max=batch_max)

    @asynccontextmanager
    async def running(self, *numbers: int, batch_max: int = 100):
        writers = [self.writer(number, batch_max) for number in numbers]
        tasks = [asyncio.create_task(each.run()) for each in writers]
        self.tasks += tasks
        try:
            yield writers
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self.tasks = [task for task in self.tasks if task not in tasks]
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def settled(self, *numbers: int) -> None:
        """Wait until every command sent is decided and its event published."""
        await self.until(lambda: all(self.done(number) for number in numbers))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, but not for writers that have failed."""
        for _ in range(4_000):
            if condition() or any(task.done() and task.exception() for task in self.tasks):
                return
            await asyncio.sleep(0.005)
        raise AssertionError("waited in vain")

    def done(self, number: int) -> bool:
        records, fence = self.topics.commands[number], self.ledger.fences.get(number)
        decided = fence is not None and (not records or fence.next_offset > records[-1].offset)
        shown = {event["position"] for event in self.events(number)}
        return decided and shown == set(range(1, fence.next_position))

    def events(self, number: int) -> list[dict]:
        return [decode(EVENTS, event.value) for event in self.topics.events[number]]

    def outcomes(self, number: int) -> list[str | None]:
        return [event["reason"] for event in self.events(number)]

    def balance(self, account_id: str) -> int:
        number = self.ledger.accounts[account_id].account_no
        shares = self.ledger.shares.items()
        return sum(share.posted_minor for (account, _), share in shares if account == number)


async def test_commands_become_rows_and_events_in_order():
    world = World()
    world.send(0, open_account(ALICE), open_account(BANK), transfer("a", (BANK, ALICE, 50)), gap=3)
    async with world.running(0) as [writer]:
        await world.settled(0)
        assert writer.next_offset == world.topics.commands[0][-1].offset + 1
    assert [event["type"] for event in world.events(0)] == [
        "account.opened",
        "account.opened",
        "transfer.posted",
    ]
    assert world.topics.events[0][2].traceparent == b"00-6"
    assert world.topics.events[0][2].key == ALICE.encode()
    assert world.balance(ALICE) == 50


async def test_poison_is_buried_and_counted_and_the_rest_goes_on():
    world = World()
    bad = {**transfer("z", (BANK, ALICE, 1)), "attempt": 0}
    world.send(0, open_account(ALICE), b"\0garbage", bad, None, open_account(BANK))
    async with world.running(0):
        await world.settled(0)
    assert [record.offset for record, _ in world.topics.buried[0]] == [1, 2, 3]
    assert world.ledger.fences[0].poisoned == 3
    assert [event["command_offset"] for event in world.events(0)] == [0, 4]


async def test_a_batch_of_nothing_but_poison_moves_the_fence():
    world = World()
    world.send(0, b"", b"\0")
    async with world.running(0):
        await world.settled(0)
    assert (world.ledger.fences[0].next_offset, world.ledger.fences[0].next_position) == (2, 1)


async def test_an_idle_fence_moves_over_transaction_markers_once(monkeypatch):
    monkeypatch.setattr("ledger_writer.partition.IDLE_S", 0.0)
    world = World()
    world.send(0, open_account(ALICE))
    world.topics.ends[0] = 4
    async with world.running(0):
        await world.settled(0)
        await world.until(lambda: world.ledger.fences[0].next_offset == 4)
        commits = len(world.ledger.commits)
        world.send(0, open_account(BANK), gap=5)
        await world.settled(0)
    assert commits == 2
    assert [event["position"] for event in world.events(0)] == [1, 2]
    assert len(world.ledger.commits) == 3


async def test_money_moves_between_homes_and_both_sides_can_spend_it():
    world = World()
    world.send(0, open_account(ALICE), open_account(BANK), transfer("fund", (BANK, ALICE, 50)))
    world.send(1, open_account(BOB))
    async with world.running(0, 1):
        await world.settled(0, 1)
        world.send(0, transfer("there", (ALICE, BOB, 30)))
        await world.settled(0)
        world.send(1, transfer("back", (BOB, ALICE, 30)))
        await world.settled(1)
        world.send(0, transfer("again", (ALICE, BOB, 50)), transfer("more", (ALICE, BOB, 1)))
        await world.settled(0)
    assert world.outcomes(1) == [None, None]
    assert world.outcomes(0)[-2:] == [None, "insufficient_funds"]
    assert (world.balance(ALICE), world.balance(BOB), world.balance(BANK)) == (0, 50, -50)


async def test_the_second_use_of_a_key_on_another_partition_is_refused():
    world = World()
    world.send(0, open_account(ALICE), open_account(BANK), transfer("k", (BANK, ALICE, 50)))
    world.send(1, open_account(BOB))
    async with world.running(0, 1):
        await world.settled(0, 1)
        world.send(1, transfer("k", (BOB, ALICE, 1)), transfer("other", (BANK, BOB, 1)))
        await world.settled(1)
    assert world.outcomes(1)[-2:] == ["idempotency_key_reused", None]


async def test_a_repeat_of_another_batch_gets_the_first_outcome():
    world = World()
    pay = transfer("k", (BANK, ALICE, 50))
    world.send(0, open_account(ALICE), open_account(BANK), pay, {**pay, "attempt": 2})
    async with world.running(0, batch_max=1):
        await world.settled(0)
    assert [event["repeated"] for event in world.events(0)] == [False, False, False, True]
    assert world.events(0)[3]["entries"] == world.events(0)[2]["entries"]
    assert world.balance(ALICE) == 50


async def test_an_account_frozen_meanwhile_is_seen_before_the_next_commit():
    world = World()
    world.send(0, open_account(ALICE), open_account(BANK), transfer("a", (BANK, ALICE, 50)))
    async with world.running(0):
        await world.settled(0)
        ledger = world.ledger
        ledger.accounts[ALICE] = replace(ledger.accounts[ALICE], credits_frozen=True)
        ledger.fences[0] = replace(ledger.fences[0], accounts_version=1)
        world.send(0, transfer("b", (BANK, ALICE, 50)))
        await world.settled(0)
    assert world.outcomes(0)[-1] == "account_frozen"


async def test_events_rebuilt_from_the_journal_are_the_same_bytes():
    world = World()
    pay = transfer("k", (BANK, ALICE, 50), reference="r", metadata={"b": "1", "a": "2"})
    world.send(0, open_account(ALICE), open_account(BANK), pay, pay)
    world.send(0, transfer("k", (BANK, ALICE, 51)), transfer("poor", (ALICE, BOB, 1)))
    async with world.running(0, batch_max=2):
        await world.settled(0)
    published = [event.value for event in world.topics.events[0]]
    del world.topics.events[0][2:]
    async with world.running(0):
        await world.settled(0)
    assert [event.value for event in world.topics.events[0]] == published


async def test_what_the_log_already_shows_is_not_published_again():
    world = World()
    world.send(0, open_account(ALICE), open_account(BANK))
    async with world.running(0):
        await world.settled(0)
    async with world.running(0) as [writer]:
        await world.until(lambda: writer.ready)
    assert len(world.topics.events[0]) == 2


async def test_a_log_that_knows_more_than_the_journal_stops_the_writer():
    world = World()
    world.send(0, open_account(ALICE), open_account(BANK))
    async with world.running(0):
        await world.settled(0)
    world.ledger.fences[0] = replace(world.ledger.fences[0], next_position=2)
    with pytest.raises(Corrupt, match="lost commits"):
        await world.writer(0).run()


async def test_a_writer_that_is_overtaken_while_it_starts_is_fenced_and_not_alarmed():
    world = World()
    world.send(0, open_account(ALICE), open_account(BANK))

    class Overtaken(MemoryLog):
        async def published_position(self) -> int:
            async with world.running(0):
                await world.settled(0)
            return await super().published_position()

    late = world.writer(0)
    late._logs = SimpleNamespace(open=lambda *at: _opened(Overtaken(world.topics, *at, Weather())))
    await late.run()
    assert world.ledger.fences[0].epoch == 2
    assert len(world.topics.events[0]) == 2


@asynccontextmanager
async def _opened(log: MemoryLog):
    yield log


async def test_a_share_changed_by_somebody_else_stops_the_writer():
    world = World()
    world.send(0, open_account(ALICE), open_account(BANK), transfer("a", (BANK, ALICE, 50)))

    async def meddle() -> None:
        async with world.running(0):
            await world.settled(0)
            key = (world.ledger.accounts[ALICE].account_no, 0)
            world.ledger.shares[key] = replace(world.ledger.shares[key], version=9)
            world.send(0, transfer("b", (BANK, ALICE, 50)))
            await world.settled(0)

    with pytest.raises(Corrupt, match="version"):
        await meddle()


class Cuts(Weather):
    """Fails the calls it is told to, once each."""

    def __init__(self) -> None:
        self.sends: set[str] = set()
        self.answers: set[str] = set()

    async def sending(self, call: str) -> None:
        if call in self.sends:
            self.sends.remove(call)
            raise Unavailable(call)

    async def answering(self, call: str) -> None:
        if call in self.answers:
            self.answers.remove(call)
            await asyncio.sleep(0)
            raise Unavailable(call)


@pytest.mark.parametrize("side", ["sends", "answers"])
@pytest.mark.parametrize("call", ["acquire", "standings", "commit", "publish"])
async def test_a_call_that_is_cut_loses_and_doubles_nothing(call, side):
    weather = Cuts()
    getattr(weather, side).add(call)
    world = World(weather)
    world.send(0, open_account(ALICE), open_account(BANK))
    world.send(0, transfer("a", (BANK, ALICE, 50)), transfer("b", (BANK, ALICE, 7)))
    async with world.running(0, batch_max=3):
        await world.settled(0)
    assert not getattr(weather, side), "it was cut"
    assert world.balance(ALICE) == 57
    assert {event["position"] for event in world.events(0)} == {1, 2, 3, 4}


async def test_a_writer_that_lost_its_fence_writes_nothing_more():
    world = World()
    world.send(0, open_account(ALICE), open_account(BANK))
    async with world.running(0) as [zombie]:
        await world.settled(0)
        async with world.running(0):
            await world.until(lambda: world.ledger.fences[0].epoch == 2)
            world.send(0, transfer("a", (BANK, ALICE, 50)))
            await world.settled(0)
        assert zombie.next_offset == 2
    assert world.balance(ALICE) == 50


async def test_a_writer_in_trouble_does_not_take_the_fence_back_from_its_successor():
    world, weather = World(), Cuts()
    world.send(0, open_account(ALICE), open_account(BANK))
    overtaken = asyncio.create_task(world.writer(0, weather=weather).run())
    await world.settled(0)
    async with world.running(0):
        await world.until(lambda: world.ledger.fences[0].epoch == 2)
        weather.sends.add("take")
        async with asyncio.timeout(5):
            await overtaken
        assert not weather.sends, "it was cut, and looked again"
    assert world.ledger.fences[0].epoch == 2


async def test_the_journal_holds_what_the_events_say():
    world = World()
    world.send(0, open_account(ALICE), open_account(BANK), transfer("a", (BANK, ALICE, 50)))
    async with world.running(0):
        await world.settled(0)
    rows = [world.ledger.row(0, position) for position in (1, 2, 3)]
    assert [event_bytes(row) for row in rows] == [e.value for e in world.topics.events[0]]
    keys = {claim_key(_command(record)) for record in world.topics.commands[0]}
    assert keys == world.ledger.identities.keys()


def _command(record: Record) -> Command:
    return read_records([record]).commands[0]
