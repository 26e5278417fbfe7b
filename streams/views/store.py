"""The views database: rows of a batch and the offsets behind it, in one transaction, fenced.

Invariant: the tables hold exactly what the log says below `view_offsets`. A claim raises a
partition's epoch; only its holder may advance the offset, and only from where it stands, so a stale
owner changes nothing (Fenced). When a commit's outcome is unknown (Unavailable) the next claim
reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from schemas.errors import Fenced, Poisoned, Unavailable
from streams.views import statements
from streams.views.migrate import applied, migrations
from streams.views.parts import row_of
from streams.views.rows import Rows

CONNECT_S: Final = 5.0
COMMAND_S: Final = 10.0
LOCK_S: Final = 5.0
IDLE_S: Final = 2.0
"""An owner that is paused in mid-transaction holds its partitions' rows: Postgres ends it after
this time, before the claim of the next owner gives up waiting for them."""
TRANSACTION_S: Final = 20.0
"""The same for an owner that is paused in mid-statement (parsed and not yet run, as the driver does
at first use), for which no other limit of Postgres counts. Postgres before 17 knows no such."""
_TRANSACTION_TIMEOUT_SINCE: Final = 17

_AWAY: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the connection was lost as a statement was sent
    OSError,
    TimeoutError,
)

# A value that Postgres can't hold (a NUL in a text, a number beyond its column) comes from a
# record, and comes again however often it is tried.
_VALUE: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Claim:
    """What its holder may write: a partition's epoch, and where it goes on (None: its start)."""

    epoch: int
    next: int | None


class Store:
    """One connection to the views database; its owner makes one call at a time."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, dsn: str, name: str) -> Store:
        """Connect and check that the migrations have run; raises Unavailable."""
        try:
            # The log keeps what a crash of Postgres could take from the end of an asynchronous
            # commit, rows and offset alike: this reads it again. So no commit waits for the disk.
            connection = await asyncpg.connect(
                dsn,
                timeout=CONNECT_S,
                command_timeout=COMMAND_S,
                server_settings={
                    "application_name": name,
                    "synchronous_commit": "off",
                    "statement_timeout": str(int(COMMAND_S * 1000)),
                    "lock_timeout": str(int(LOCK_S * 1000)),
                    "idle_in_transaction_session_timeout": str(int(IDLE_S * 1000)),
                },
            )
            if connection.get_server_version().major >= _TRANSACTION_TIMEOUT_SINCE:
                bound_ms = int(TRANSACTION_S * 1000)
                await connection.execute(f"set transaction_timeout to {bound_ms}")
            missing = {number for number, _ in migrations()} - await applied(connection)
        except _AWAY as error:
            raise Unavailable(f"the views database: {error!r}") from error
        if missing:
            await connection.close(timeout=CONNECT_S)
            raise Unavailable(
                f"the views database lacks migrations {sorted(missing)}: run "
                "`python -m streams.views.migrate`"
            )
        return cls(connection)

    async def claim(self, partitions: Iterable[Partition]) -> dict[Partition, Claim]:
        """Take partitions over: no earlier owner of theirs writes from now on."""
        topics, numbers = statements.columns(sorted(partitions))
        try:
            async with self._connection.transaction():
                await self._connection.execute("set local synchronous_commit to on")
                rows = await self._connection.fetch(statements.CLAIM, topics, numbers)
        except _AWAY as error:
            raise Unavailable(f"the views database: {error!r}") from error
        return {
            (row["topic"], row["partition"]): Claim(row["epoch"], row["next_offset"])
            for row in rows
        }

    async def apply(
        self, rows: Rows, claims: Mapping[Partition, Claim], ends: Mapping[Partition, int]
    ) -> None:
        """Write rows and move each partition from its claim's offset to its end, or change nothing.

        Raises Fenced, Unavailable, or Poisoned when a value can never be written.
        """
        moved = [(*p, claims[p].epoch, claims[p].next, end) for p, end in sorted(ends.items())]
        try:
            async with self._connection.transaction():
                status = await self._connection.execute(
                    statements.ADVANCE, *statements.columns(moved)
                )
                if status != f"UPDATE {len(moved)}":
                    raise Fenced(f"views: another owner has one of {sorted(ends)}")
                await self._write(rows)
        except _VALUE as error:
            raise Poisoned(f"a value does not fit the read model: {error}") from error
        except _AWAY as error:
            raise Unavailable(f"the views database: {error!r}") from error

    async def close(self) -> None:
        """End the connection; never raises for one that is gone."""
        with suppress(*_AWAY):
            await self._connection.close(timeout=2)

    async def _write(self, rows: Rows) -> None:
        for statement, of_table in (
            (statements.PAYMENTS, rows.payments.values()),
            (statements.MARKS, rows.marks.items()),
            (statements.TIMELINE, rows.timeline),
            (statements.ACCOUNTS, rows.accounts.values()),
            (statements.STANDINGS, rows.standings.values()),
            (statements.SHARES, rows.shares.values()),
            (statements.ENTRIES, rows.entries),
            (statements.SHIFTED, rows.shifted),
            (statements.HOLDS, rows.holds.placed.values()),
            (statements.HOLDS_CHANGED, rows.holds.changed.values()),
            (statements.TAGS, rows.tags),
            (statements.TRANSFERS, rows.transfers.values()),
            (statements.PARTS, (row_of(*part) for part in sorted(rows.parts.items()))),
            (statements.WEBHOOKS, rows.webhooks.values()),
        ):
            arrays: list[list[Any]] = statements.columns(of_table)
            if arrays:
                await self._connection.execute(statement, *arrays)
