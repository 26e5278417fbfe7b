"""The three databases and their roles: who may connect where.

Invariant: PUBLIC may connect to none of them, so no role reads another database than its own.
Tables and their grants come from each service's own migrations, run as the owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from deploy.local.roles import DATABASES, ROLES, SUPERUSER

if TYPE_CHECKING:
    from deploy.local.roles import Address


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
