"""Past balances, statements and search, compared with sums over the whole history."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import asyncpg
import pytest

from ledger_writer.command import read_command
from ledger_writer.crash import CrashPoint
from ledger_writer.index import index
from ledger_writer.intake import Intake
from ledger_writer.migrate import migrate
from ledger_writer.model import Row
from ledger_writer.postgres import PostgresJournals
from ledger_writer.samples import account_on, capture, hold, open_account, transfer
from ledger_writer.settle import Settler

PARTITIONS = 2
NAMES = [account_on(number % 2, PARTITIONS, skip=number // 2) for number in range(4)]
BANKS = [account_on(number, PARTITIONS, "external") for number in range(2)]
BALANCE = "select * from ledger.balance_at($1, $2)"
SMALL_SPANS = """
    create or replace function ledger.index_span() returns int8 immutable
        language sql as 'select 8::int8'"""


@asynccontextmanager
async def connected(dsn: str):
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


def load(rng: random.Random) -> list[dict]:
    """Opened accounts and a hundred movements on two partitions, some of another time."""
    records = [open_account(name) for name in [*NAMES, *BANKS]]
    for number in range(100):
        name, other = rng.sample(NAMES, 2)
        home = name if rng.random() < 0.5 else other
        bank = rng.choice(BANKS)
        at_us = rng.choice([None, None, rng.randrange(1_000_000, 1_300_000)])
        fields = {"reference": f"r-{number % 7}", "metadata": {"order": str(number % 5)}}
        records.append(
            transfer(f"fund-{number}", (bank, name, 50), home=home, effective_at_us=at_us, **fields)
        )
        if number % 9 == 0:
            held = hold(f"hold-{number}", name, bank, 5)
            records += [held, capture(f"capture-{number}", held, 2)]
        records.append(transfer(f"pay-{number}", (name, other, 7), effective_at_us=at_us))
    return records


@pytest.fixture
async def rows(new_database):
    """Fill a ledger; its database by role, and what was decided."""
    dsns = new_database("ledger")
    await migrate(dsns["ledger_owner"])
    async with connected(dsns["ledger_owner"]) as owner:
        await owner.execute(SMALL_SPANS)
    journals = PostgresJournals(dsns["ledger_writer"], "test", PARTITIONS)
    decided: list[Row] = []
    async with journals.open() as journal:
        settlers = [Settler(n, PARTITIONS, journal, CrashPoint()) for n in range(PARTITIONS)]
        fences = [await journal.acquire(n, None) for n in range(PARTITIONS)]
        for number, record in enumerate(load(random.Random(1))):
            at = record["slot"] % PARTITIONS
            offset = fences[at].next_offset
            command = read_command(record, offset, 1_000 + number)
            intake = Intake([command], [], {}, offset + 1)
            fences[at], decision = await settlers[at].settle(fences[at], intake, 0)
            decided += decision.rows
    return dsns, decided


def sums(decided: list[Row], account_id: str, until) -> int:
    return sum(
        entry.amount_minor
        for row in decided
        for entry in row.entries
        if entry.account_id == account_id and until(row)
    )


async def check(reader: asyncpg.Connection, decided: list[Row]) -> None:
    for account_id in [*NAMES, *BANKS]:
        for at_us in (0, 1_000_000, 1_007_000, 1_100_000, 1_150_500, 1_299_000, 9_000_000):
            line = await reader.fetchrow(
                "select * from ledger.balance_at($1, $2)", account_id, at_us
            )
            held, seen = {}, []
            for row in decided:
                for entry in row.entries:
                    if entry.account_id == account_id and row.booked_at_us <= at_us:
                        held[row.partition] = entry.held_minor
                        seen.append(entry.amount_minor)
            assert (line["posted_minor"], line["held_minor"]) == (sum(seen), sum(held.values()))
            effective = await reader.fetchval(
                "select ledger.effective_balance_at($1, $2)", account_id, at_us
            )
            expected = sums(decided, account_id, lambda row, at=at_us: row.effective_at_us <= at)
            assert effective == expected
        await check_statement(reader, decided, account_id)
    found = await reader.fetch("select * from ledger.search('acme', 'reference', 'r-3')")
    assert {line["saga_id"] for line in found} == {
        row.saga_id for row in decided if row.extras().get("reference") == "r-3"
    }
    found = await reader.fetch("select * from ledger.search('acme', 'metadata.order', '4')")
    assert len(found) == 20
    assert not await reader.fetch("select * from ledger.search('other', 'metadata.order', '4')")


async def check_statement(reader: asyncpg.Connection, decided: list[Row], account_id: str) -> None:
    first, end = 1_040_000, 1_200_000
    found = await reader.fetch("select * from ledger.statement($1, $2, $3)", account_id, first, end)
    entries = [
        (row.booked_at_us, row.partition, row.position, ordinal, entry.amount_minor)
        for row in decided
        for ordinal, entry in enumerate(row.entries)
        if entry.account_id == account_id and first <= row.booked_at_us < end
    ]
    running, expected = sums(decided, account_id, lambda row: row.booked_at_us < first), []
    for entry in sorted(entries):
        running += entry[-1]
        expected.append((*entry, running))
    names = ("booked_at_us", "share", "position", "ordinal", "amount_minor", "running_minor")
    assert [tuple(line[name] for name in names) for line in found] == expected


async def test_the_past_is_the_same_before_and_after_it_is_indexed(rows):
    dsns, decided = rows
    async with connected(dsns["ledger_reader"]) as reader:
        await check(reader, decided)
        spans = await index(dsns["ledger_writer"])
        assert spans == sum(
            (1 + max(row.position for row in decided if row.partition == number)) // 8
            for number in range(PARTITIONS)
        )
        assert await index(dsns["ledger_writer"]) == 0
        await check(reader, decided)
