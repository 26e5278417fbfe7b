"""The three databases and their roles: who may connect where.

Invariant: PUBLIC may connect to none of them, so no role reads another database than its own.
Tables and their grants come from each service's own migrations, run as the owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import asyncpg

SUPERUSER: Final = "postgres"
DATABASES: Final[dict[str, tuple[str, ...]]] = {
    "ledger": ("ledger_owner", "ledger_writer", "ledger_reader"),
    "views": ("views_owner", "views_reader"),
    "lake": ("lake_owner",),
}
"""Each database with its roles; the first owns it."""
ROLES: Final = tuple(role for roles in DATABASES.values() for role in roles)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Postgres server listens and its roles' passwords."""

    host: str
    port: int
    passwords: dict[str, str]

    def dsn(self, role: str, database: str) -> str:
        """A connection URL; it holds the password."""
        password = quote(self.passwords[role], safe="")
        return f"postgresql://{role}:{password}@{self.host}:{self.port}/{database}"


def database_of(role: str) -> str:
    """The one database this role may connect to."""
    return next(name for name, roles in DATABASES.items() if role in roles)


async def ensure_databases(address: Address) -> None:
    """Create roles and databases that are missing; set passwords and connect rights again."""
    connection = await asyncpg.connect(address.dsn(SUPERUSER, "postgres"))
    try:
        for role in ROLES:
            await _ensure_role(connection, role, address.passwords[role])
        for database, roles in DATABASES.items():
            await create_database(connection, database, roles)
        await connection.execute("revoke connect, temporary on database postgres from public")
    finally:
        await connection.close()


async def create_database(
    connection: asyncpg.Connection, name: str, roles: tuple[str, ...]
) -> None:
    """A database that the first role owns and only these roles may connect to."""
    if not await connection.fetchval("select 1 from pg_database where datname = $1", name):
        await connection.execute(f'create database "{name}" owner "{roles[0]}"')
    await connection.execute(f'revoke connect, temporary on database "{name}" from public')
    for role in roles:
        await connection.execute(f'grant connect on database "{name}" to "{role}"')


async def _ensure_role(connection: asyncpg.Connection, role: str, password: str) -> None:
    if not await connection.fetchval("select 1 from pg_roles where rolname = $1", role):
        await connection.execute(f'create role "{role}"')
    # Names are constants above and passwords URL-safe tokens: neither can hold a quote.
    assert "'" not in password
    await connection.execute(
        f'alter role "{role}" with login noinherit nosuperuser nocreatedb nocreaterole '
        f"password '{password}'"
    )
