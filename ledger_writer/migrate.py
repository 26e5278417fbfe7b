"""Creates and upgrades the ledger's tables: `python -m ledger_writer.migrate`, as the owner.

Numbered SQL files, each applied once, whole, in its own transaction, under a lock, so that any
number of these may run at the same time. A file that was applied must not change. The writer
checks at its start that the database is where its code expects it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from ledger_writer.fitness import check_server
from ledger_writer.refusal import AWAY
from schemas.environment import SettingError, read
from schemas.errors import Corrupt, Unavailable

FOLDER: Final = Path(__file__).with_name("migrations")
ROLES: Final = ("ledger_writer", "ledger_reader")
LOCK: Final = 7239000
TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 1.0

_TABLE: Final = """
    create table if not exists public.ledger_migrations (
        number int4 primary key, name text not null, sha256 text not null,
        applied_at timestamptz not null default now())"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The hash of its text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Return the files in order."""
    found = [
        Migration(int(path.name.split("_")[0]), path.stem, path.read_text())
        for path in sorted(FOLDER.glob("*.sql"))
    ]
    assert [each.number for each in found] == list(range(1, len(found) + 1))
    return found


async def migrate(owner_dsn: str) -> list[str]:
    """Apply what is missing; return the names of what was applied."""
    connection = await asyncpg.connect(
        owner_dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=TIMEOUT_S
    )
    try:
        await _check_roles(connection)
        applied = []
        for migration in migrations():
            async with connection.transaction():
                await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
                await connection.execute(_TABLE)
                await connection.execute(
                    "grant select on public.ledger_migrations to ledger_writer, ledger_reader"
                )
                if await _is_applied(connection, migration):
                    continue
                await connection.execute(migration.sql)
                await connection.execute(
                    "insert into public.ledger_migrations (number, name, sha256)"
                    " values ($1, $2, $3)",
                    migration.number,
                    migration.name,
                    migration.sha256,
                )
                applied.append(migration.name)
        return applied
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


async def check(writer_dsn: str, partitions: int | None = None) -> None:
    """Raise Corrupt, in plain words, unless this writer can work on the database.

    That is: at this code's migration, with the writer's rights, on a server that keeps what it
    commits, and with accounts at home where so many partitions put them. Unavailable when it does
    not answer.
    """
    try:
        connection = await asyncpg.connect(
            writer_dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=CONNECT_TIMEOUT_S
        )
    except (asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError) as e:
        raise Corrupt(f"the ledger database refuses the writer: {e}") from e
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise Unavailable(f"the ledger database does not answer: {error!r}") from error
    try:
        present = await connection.fetchval("select to_regclass('public.ledger_migrations')")
        found = (
            await connection.fetch("select number, sha256 from public.ledger_migrations")
            if present
            else []
        )
        _check_migrations({line["number"]: line["sha256"] for line in found})
        await check_server(connection, partitions)
    except asyncpg.InsufficientPrivilegeError as error:
        raise Corrupt(
            f"the writer's role lacks rights: {error}: connect as ledger_writer"
        ) from error
    except AWAY as error:
        raise Unavailable(f"the ledger database does not answer: {error!r}") from error
    finally:
        with suppress(*AWAY):
            await connection.close(timeout=CLOSE_TIMEOUT_S)


def _check_migrations(applied: dict[int, str]) -> None:
    expected = migrations()
    missing = [each.name for each in expected if each.number not in applied]
    if missing:
        raise Corrupt(
            f"the ledger database lacks {', '.join(missing)}: run `python -m ledger_writer.migrate`"
            " with HEADRACE_LEDGER_OWNER_DSN set"
        )
    if len(applied) > len(expected):
        raise Corrupt(
            f"the ledger database is at migration {max(applied)}, this writer knows only"
            f" {len(expected)}: it is older than its database"
        )


async def _check_roles(connection: asyncpg.Connection) -> None:
    found = await connection.fetch("select rolname from pg_roles where rolname = any($1)", ROLES)
    missing = set(ROLES) - {line["rolname"] for line in found}
    if missing:
        raise Corrupt(f"create these roles first: {', '.join(sorted(missing))}")


async def _is_applied(connection: asyncpg.Connection, migration: Migration) -> bool:
    sha256 = await connection.fetchval(
        "select sha256 from public.ledger_migrations where number = $1", migration.number
    )
    if sha256 is not None and sha256 != migration.sha256:
        raise Corrupt(f"{migration.name} was applied with another text; put it back from git")
    return sha256 is not None


def main() -> int:
    """Migrate, and say what was done."""
    try:
        dsn = read(os.environ, "HEADRACE_LEDGER_OWNER_DSN")["ledger_owner_dsn"]
        applied = asyncio.run(migrate(dsn))
    except (SettingError, Corrupt, OSError, TimeoutError, asyncpg.PostgresError) as error:
        print(f"ledger migrations: {error}", file=sys.stderr)
        return 1
    print(f"ledger migrations: applied {', '.join(applied) if applied else 'nothing, up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
