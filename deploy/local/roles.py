"""The three databases, their roles, and the URL of each. Pure.

A role may connect to one database only; the first of a database's roles owns it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

SUPERUSER: Final = "postgres"
DATABASES: Final[dict[str, tuple[str, ...]]] = {
    "ledger": ("ledger_owner", "ledger_writer", "ledger_reader"),
    "views": ("views_owner", "views_reader"),
    "lake": ("lake_owner",),
}
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
