"""Peers of the ledger writer: row locks in Postgres, a bare COPY, and TigerBeetle.

All on the bench's own Postgres with the same settings, or TigerBeetle's own server in a file
beside it; accounts and spread are those of the writer's load. Row locks come in two forms: the
usual one of an application (a transaction of four round trips), and the fastest one (a function
in the database, one round trip). Neither has a chain, ids to refuse, or events.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final

import asyncpg

from loadtest.bench.ledger_load import drawer
from loadtest.bench.ledger_rig import Rig, database
from loadtest.bench.ledger_tigerbeetle import tigerbeetle
from loadtest.bench.report import say

LOCKS: Final = "SELECT FOR UPDATE"
FUNCTION: Final = "row locks in a function"
COPY: Final = "COPY, three rows a transfer"
KEYED: Final = "COPY, three rows a transfer, with primary keys"
CLIENTS: Final = 20
ACCOUNTS: Final = 10_000
FUNDS_MINOR: Final = 1_000_000_000_000

_TABLES: Final = """
create table accounts (id int8 primary key, balance int8 not null check (balance >= 0),
    version int8 not null) with (fillfactor = 60);
create table transfers (id int8 generated always as identity primary key, source int8 not null,
    destination int8 not null, amount int8 not null, at timestamptz not null default now());
create table entries (transfer int8 not null, account int8 not null, amount int8 not null,
    balance int8 not null, version int8 not null, primary key (account, version));
create function transfer(p_source int8, p_destination int8, p_amount int8) returns bool
    language plpgsql as $$
declare
    known int8; made int8;
begin
    perform from accounts where id in (p_source, p_destination) order by id for update;
    select balance into known from accounts where id = p_source;
    if known < p_amount then return false; end if;
    insert into transfers (source, destination, amount)
        values (p_source, p_destination, p_amount) returning id into made;
    with moved as (
        update accounts set version = version + 1,
               balance = balance + case when id = p_source then -p_amount else p_amount end
         where id in (p_source, p_destination) returning id, balance, version)
    insert into entries select made, id,
           case when id = p_source then -p_amount else p_amount end, balance, version from moved;
    return true;
end $$;
create table copied_transfers (position int8, source int8, destination int8, amount int8,
    id uuid, body_hash bytea);
create table copied_entries (position int8, account int8, version int8, amount int8,
    balance int8);
"""
_KEYS: Final = """
alter table copied_transfers add primary key (position);
alter table copied_entries add primary key (account, version)"""
_LOCK: Final = "select id, balance from accounts where id = any($1) order by id for update"
_WRITE: Final = """
    with made as (insert into transfers (source, destination, amount) values ($1, $2, $3)
                  returning id),
         moved as (update accounts set version = version + 1,
                          balance = balance + case when id = $1 then -$3 else $3 end
                    where id in ($1, $2) returning id, balance, version)
    insert into entries select made.id, moved.id,
           case when moved.id = $1 then -$3 else $3 end, moved.balance, moved.version
      from made, moved"""

Transfer = Callable[[asyncpg.Connection, int, int, int], Awaitable[None]]


async def compare(rig: Rig) -> list[dict[str, Any]]:
    """Run every peer, each for SECONDS."""
    rows = []
    for name, way in ((LOCKS, _locked), (FUNCTION, _called)):
        for skew, spread in ((0.0, "uniform"), (1.0, "Zipf 1"), (2.0, "Zipf 2")):
            rate = await _clients(rig, way, skew)
            rows.append({"what": f"{name}, {spread}", "transfers/s": rate, "clients": CLIENTS})
            say(f"  {rows[-1]['what']}: {rate:,.0f}/s")
    for name, keys in ((COPY, ""), (KEYED, _KEYS)):
        rate = await _copy(rig, keys)
        rows.append({"what": name, "transfers/s": rate, "batch": rig.sizes.batch})
        say(f"  {name}: {rate:,.0f}/s")
    if rig.sizes.tigerbeetle is None:
        say("  TigerBeetle: not run; TIGERBEETLE=path names its server binary")
    else:
        rows += await asyncio.to_thread(tigerbeetle, rig)
    return rows


async def _clients(rig: Rig, way: Transfer, skew: float) -> float:
    """Transfers a second of 20 connections, each doing one after another."""
    async with database(rig):
        await _tables(rig)
        made = 0
        deadline = time.perf_counter() + 1.0 + rig.sizes.seconds
        starts_at = deadline - rig.sizes.seconds

        async def client(seed: int) -> None:
            nonlocal made
            random = Random(seed)
            draw = drawer(list(range(ACCOUNTS)), skew, random)
            connection = await asyncpg.connect(rig.dsn("ledger_owner"))
            try:
                while (now := time.perf_counter()) < deadline:
                    source, destination = draw(), draw()
                    if source != destination:
                        await way(connection, source, destination, random.randint(1, 100))
                        made += now >= starts_at
            finally:
                await connection.close()

        await asyncio.gather(*(client(seed) for seed in range(CLIENTS)))
        return made / rig.sizes.seconds


async def _locked(
    connection: asyncpg.Connection, source: int, destination: int, amount: int
) -> None:
    async with connection.transaction():
        found = await connection.fetch(_LOCK, [source, destination])
        if {line["id"]: line["balance"] for line in found}[source] >= amount:
            await connection.execute(_WRITE, source, destination, amount)


async def _called(
    connection: asyncpg.Connection, source: int, destination: int, amount: int
) -> None:
    await connection.fetchval("select transfer($1, $2, $3)", source, destination, amount)


async def _copy(rig: Rig, keys: str) -> float:
    """Transfers a second by COPY: no check of anything, a commit a batch."""
    async with database(rig):
        await _tables(rig)
        connection = await asyncpg.connect(rig.dsn("ledger_owner"))
        if keys:
            await connection.execute(keys)
        made, began = 0, time.perf_counter()
        try:
            while time.perf_counter() - began < rig.sizes.seconds:
                transfers, entries = _rows(made, rig.sizes.batch)
                async with connection.transaction():
                    await connection.copy_records_to_table("copied_transfers", records=transfers)
                    await connection.copy_records_to_table("copied_entries", records=entries)
                made += rig.sizes.batch
            return made / (time.perf_counter() - began)
        finally:
            await connection.close()


def _rows(first: int, count: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    transfers, entries = [], []
    for number in range(first, first + count):
        source, destination = number * 7919 % ACCOUNTS, (number * 104729 + 1) % ACCOUNTS
        key = number.to_bytes(16, "big")
        transfers.append((number, source, destination, 5, key.hex(), key + key))
        entries.append((number, source, number, -5, number))
        entries.append((number, destination, number, 5, number))
    return transfers, entries


async def _tables(rig: Rig) -> None:
    connection = await asyncpg.connect(rig.dsn("ledger_owner"))
    try:
        await connection.execute(_TABLES)
        fund = "insert into accounts select n, $1, 1 from generate_series(0, $2 - 1) n"
        await connection.execute(fund, FUNDS_MINOR, ACCOUNTS)
        await connection.execute("analyze accounts")
    finally:
        await connection.close()
