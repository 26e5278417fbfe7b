"""`python -m streams.views.migrate`: bring the views database up to date, as its owner.

Migrations are the numbered files beside this module. Each runs once, in a transaction with the note
that it did; two runs at once wait for one another. Never edits what has run: a change is a new
file.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

import asyncpg

from schemas import environment

FOLDER: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x76696577
_TIMEOUT_S: Final = 60.0
_LEDGER_OF_RUNS: Final = """
create table if not exists schema_migrations (
    version integer primary key, name text not null, applied_at timestamptz not null default now()
)"""


def migrations() -> list[tuple[int, Path]]:
    """Return the numbered files, oldest first; their numbers count up from 1."""
    files = sorted(FOLDER.glob("*.sql"))
    numbered = [(int(path.name.partition("_")[0]), path) for path in files]
    assert [number for number, _ in numbered] == list(range(1, len(files) + 1))
    return numbered


async def migrate(dsn: str) -> list[str]:
    """Run what has not run; return the names."""
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=_TIMEOUT_S)
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        await connection.execute(_LEDGER_OF_RUNS)
        done = await applied(connection)
        ran = []
        for number, path in migrations():
            if number in done:
                continue
            async with connection.transaction():
                await connection.execute(path.read_text())
                await connection.execute(
                    "insert into schema_migrations (version, name) values ($1, $2)",
                    number,
                    path.stem,
                )
            ran.append(path.stem)
        return ran
    finally:
        await connection.close(timeout=5)


async def applied(connection: asyncpg.Connection[asyncpg.Record]) -> set[int]:
    """Return the numbers of the migrations that have run; none on an empty database."""
    if await connection.fetchval("select to_regclass('schema_migrations')") is None:
        return set()
    rows = await connection.fetch("select version from schema_migrations")
    return {row["version"] for row in rows}


def main() -> int:
    """Migrate the database of HEADRACE_VIEWS_DSN."""
    try:
        dsn = environment.read(os.environ, "HEADRACE_VIEWS_DSN")["views_dsn"]
        ran = asyncio.run(migrate(dsn))
    except environment.SettingError as error:
        print(error, file=sys.stderr)
        return 2
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        print(f"the views database cannot be migrated: {error!r}", file=sys.stderr)
        return 1
    print(f"views: {', '.join(ran) if ran else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
