"""What every leg of the ledger bench stands on: sizes, servers of its own, a database a leg.

Postgres runs as the stack runs it, every commit on disk before it is answered; that is checked
before anything is measured. Accounts are put into the tables as the owner, with funds, since
opening them is not what is measured.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from deploy.local.admin import ensure_topics
from deploy.local.credentials import load_or_create
from deploy.local.databases import create_database
from deploy.local.kafka import Kafka
from deploy.local.postgres import Postgres
from deploy.local.roles import DATABASES, SUPERUSER
from deploy.local.settings import Settings
from ledger_writer.migrate import migrate
from loadtest.bench import streams_kafka as kafka
from loadtest.bench.ledger_load import COMMANDS, PARTITIONS, Load
from loadtest.bench.streams_meter import BenchError

NAME: Final = "ledger_bench"
DURABLE: Final = ("fsync", "synchronous_commit", "full_page_writes")
_SIZE: Final = """
    select sum(pg_total_relation_size(c.oid))::int8 as bytes
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'ledger' and c.relkind = 'r'
       and (c.relname like 'journal_%' or c.relname = 'identities')"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: commands a leg, the batch of the centre point, seconds of a peer."""

    commands: int
    batch: int
    seconds: float
    against: bool
    millions: int
    tigerbeetle: Path | None

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Sizes:
        """Read N, BATCH, SECONDS, AGAINST, CURVE, MILLIONS and TIGERBEETLE."""
        curve = env.get("CURVE", "0") not in {"", "0"}
        server = env.get("TIGERBEETLE")
        return cls(
            commands=int(env.get("N") or 160_000),
            batch=int(env.get("BATCH") or 1_000),
            seconds=float(env.get("SECONDS") or 6),
            against=env.get("AGAINST", "0") not in {"", "0"},
            millions=int(env.get("MILLIONS") or (10 if curve else 0)),
            tigerbeetle=Path(server) if server else None,
        )


@dataclass(frozen=True, slots=True)
class Rig:
    """One run's servers and folder."""

    folder: Path
    sizes: Sizes
    postgres: Postgres
    broker: Kafka

    def dsn(self, role: str) -> str:
        """Return the URL of the leg's database for a role."""
        return self.postgres.address.dsn(role, NAME)


@contextmanager
def servers(settings: Settings, sizes: Sizes) -> Iterator[Rig]:
    """Run a Postgres and a Kafka with data of their own, and remove it."""
    folder = settings.home / "bench" / "ledger"
    _clean(folder)
    folder.mkdir(parents=True, exist_ok=True)
    secrets = load_or_create(folder / "credentials.json")
    postgres = Postgres(folder / "postgres", folder / "postgres.log", secrets.passwords)
    broker = kafka.broker(folder, settings.cache, settings.java)
    try:
        postgres.start()
        broker.start()
        yield Rig(folder, sizes, postgres, broker)
    finally:
        broker.stop()
        postgres.stop()
        _clean(folder)


@asynccontextmanager
async def ledger(rig: Rig, load: Load, *, opened: bool = True) -> AsyncIterator[asyncpg.Connection]:
    """Give the owner's connection to a new ledger database; `opened` with the load's accounts."""
    async with database(rig):
        await migrate(rig.dsn("ledger_owner"))
        owner = await asyncpg.connect(rig.dsn("ledger_owner"))
        try:
            await _check_durable(owner)
            if opened:
                await _open_accounts(owner, load)
            yield owner
        finally:
            await owner.close()


@asynccontextmanager
async def database(rig: Rig) -> AsyncIterator[None]:
    """Make the leg's database, empty, and drop it afterwards."""
    server = await asyncpg.connect(rig.postgres.address.dsn(SUPERUSER, "postgres"))
    try:
        await server.execute(f'drop database if exists "{NAME}" with (force)')
        await create_database(server, NAME, DATABASES["ledger"])
        yield
        await server.execute(f'drop database "{NAME}" with (force)')
        await server.execute("checkpoint")  # so that no leg pays for another's pages
    finally:
        await server.close()


async def fill(rig: Rig, load: Load, count: int) -> None:
    """Empty the topics and write `count` commands."""
    await kafka.delete(rig.broker.bootstrap, (COMMANDS, f"{COMMANDS}.dlq", "ledger.events"))
    await ensure_topics(rig.broker.bootstrap, PARTITIONS)
    records = kafka.stamped(load.commands(count))
    written = await kafka.fill(rig.broker.bootstrap, COMMANDS, PARTITIONS, records)
    assert written == count


async def bytes_on_disk(owner: asyncpg.Connection) -> int:
    """Return what the journal and the identities take, indexes included."""
    found: int = await owner.fetchval(_SIZE)
    return found


async def outcomes(owner: asyncpg.Connection) -> dict[str, int]:
    """Return how many rows of each type the journal has."""
    found = await owner.fetch("select type, count(*) as rows from ledger.journal group by type")
    return {line["type"]: line["rows"] for line in found}


async def _check_durable(connection: asyncpg.Connection) -> None:
    off = [name for name in DURABLE if await connection.fetchval(f"show {name}") != "on"]
    if off:
        raise BenchError(f"this Postgres does not keep what it commits: {', '.join(off)} off")


async def _open_accounts(owner: asyncpg.Connection, load: Load) -> None:
    def accounts() -> Iterator[tuple[Any, ...]]:
        for each in load.opened:
            yield (each.number, each.account_id, "acme", "EUR", "customer", None, 0, None)

    def shares() -> Iterator[tuple[Any, ...]]:
        for each in load.opened:
            yield (each.number, each.home, each.posted_minor, 0, 0, 0, None, 1)

    await owner.copy_records_to_table(
        "accounts",
        schema_name="ledger",
        records=accounts(),
        columns=[
            "account_no",
            "account_id",
            "tenant",
            "currency",
            "kind",
            "name",
            "min_balance_minor",
            "max_balance_minor",
        ],
    )
    await owner.copy_records_to_table(
        "shares",
        schema_name="ledger",
        records=shares(),
        columns=[
            "account_no",
            "share",
            "posted_minor",
            "held_minor",
            "foreign_minor",
            "floor_minor",
            "ceiling_minor",
            "version",
        ],
    )
    await owner.execute("analyze ledger.accounts, ledger.shares")


def _clean(folder: Path) -> None:
    for name in ("kafka", "postgres"):
        shutil.rmtree(folder / name, ignore_errors=True)
