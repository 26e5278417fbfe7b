"""The writer's start says in plain words what is wrong with its database; the index keeps up."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import asyncpg
import pytest

from ledger_writer.index import LOCK, index, keep_indexed
from ledger_writer.migrate import check, migrate
from schemas.errors import Corrupt, Unavailable


@asynccontextmanager
async def connected(dsn: str):
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def ledger(new_database) -> dict[str, str]:
    dsns = new_database("ledger")
    await migrate(dsns["ledger_owner"])
    return dsns


def superuser(postgres, ledger) -> str:
    return postgres.address.dsn("postgres", ledger["ledger_owner"].rsplit("/", 1)[1])


async def test_a_sound_database_is_fit(ledger):
    await check(ledger["ledger_writer"], 4)


async def test_a_database_that_does_not_answer_may_answer_later():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match="does not answer"):
            await check(f"postgresql://ledger_writer:x@127.0.0.1:{port}/ledger")


async def test_a_wrong_password_and_a_missing_database_are_named(ledger):
    dsn = ledger["ledger_writer"]
    name = dsn.rsplit("/", 1)[1]
    with pytest.raises(Corrupt, match="refuses the writer: .*does not exist"):
        await check(dsn.replace(name, "nowhere"))
    password = dsn.split(":")[2].split("@")[0]
    with pytest.raises(Corrupt, match="password authentication failed"):
        await check(dsn.replace(password, "wrong"))


async def test_a_newer_database_and_a_missing_migration_are_named(ledger):
    async with connected(ledger["ledger_owner"]) as owner:
        await owner.execute("insert into public.ledger_migrations values (99, 'later', 'x')")
        with pytest.raises(Corrupt, match="at migration 99, .* older than its database"):
            await check(ledger["ledger_writer"])
        await owner.execute("delete from public.ledger_migrations where number in (99, 2)")
        with pytest.raises(Corrupt, match=r"lacks 0002_functions: run .*migrate"):
            await check(ledger["ledger_writer"])


async def test_rights_that_are_missing_are_named(ledger):
    with pytest.raises(Corrupt, match="role ledger_reader lacks insert on ledger.journal"):
        await check(ledger["ledger_reader"])
    async with connected(ledger["ledger_owner"]) as owner:
        await owner.execute("revoke update on ledger.shares from ledger_writer")
    with pytest.raises(Corrupt, match="lacks update on ledger.shares: connect as ledger_writer"):
        await check(ledger["ledger_writer"])
    async with connected(ledger["ledger_owner"]) as owner:
        await owner.execute("revoke usage on schema ledger from ledger_writer")
    with pytest.raises(Corrupt, match="may not use the ledger's schema"):
        await check(ledger["ledger_writer"])


async def test_another_number_of_partitions_is_named(ledger):
    async with connected(ledger["ledger_writer"]) as writer:
        await writer.execute("select ledger.acquire(3::int2, decode(repeat('00', 32), 'hex'))")
    await check(ledger["ledger_writer"], 4)
    with pytest.raises(Corrupt, match="fence for partition 3 and HEADRACE_PARTITIONS is 2"):
        await check(ledger["ledger_writer"], 2)


async def test_settings_that_lose_commits_are_named(ledger, postgres):
    name = ledger["ledger_owner"].rsplit("/", 1)[1]
    async with connected(superuser(postgres, ledger)) as operator:
        await operator.execute(f"alter database {name} set synchronous_commit = off")
    with pytest.raises(Corrupt, match="synchronous_commit off: a crash would lose"):
        await check(ledger["ledger_writer"])


async def test_only_one_process_indexes_at_a_time_and_trouble_does_not_end_it(ledger):
    async with connected(ledger["ledger_writer"]) as writer:
        await writer.execute("select pg_advisory_lock($1::int8)".replace("$1", str(LOCK)))
        assert await index(ledger["ledger_writer"]) == 0
    keeping = asyncio.create_task(keep_indexed("postgresql://x@127.0.0.1:1/x", 0.01))
    await asyncio.sleep(0.3)
    assert not keeping.done()
    keeping.cancel()
