"""Checks that a migrated database is fit to be written: rights, durability, the partitions' number.

Raises Corrupt with what is wrong and what to do, in plain words. Reads only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ledger_writer.accounts import PARTITION_BITS, home_of
from schemas.errors import Corrupt, Rejected

if TYPE_CHECKING:
    import asyncpg

_DURABLE: Final = {
    "fsync": "a power cut would lose and break what was committed",
    "full_page_writes": "a power cut could tear pages that were committed",
    "synchronous_commit": "a crash would lose what was committed, after its events were published",
}
_SETTINGS: Final = """
    select name, setting from pg_settings where name = any($1) and setting = 'off'"""
_LACKING: Final = """
    select current_user as role, what.right, what.relation
      from (values ('insert', 'journal'), ('select', 'journal'), ('select', 'partitions'),
                   ('select', 'accounts'), ('insert', 'identities'),
                   ('insert', 'accounts'), ('insert', 'shares'), ('update', 'shares'),
                   ('update', 'partitions'), ('insert', 'partitions'), ('update', 'holds'),
                   ('update', 'reversals')) what("right", relation)
     where not has_table_privilege('ledger.' || what.relation, what.right)"""
_USAGE: Final = "select has_schema_privilege('ledger', 'usage')"
_FENCES: Final = "select max(partition) from ledger.partitions"
_ACCOUNTS: Final = "select account_no, account_id from ledger.accounts limit 100"


async def check_server(connection: asyncpg.Connection, partitions: int | None) -> None:
    """Raise Corrupt unless this connection may write, durably, for so many partitions."""
    user = await connection.fetchval("select current_user")
    again = "connect as ledger_writer, or run `python -m ledger_writer.migrate` as the owner again"
    if not await connection.fetchval(_USAGE):
        raise Corrupt(f"role {user} may not use the ledger's schema: {again}")
    lacking = await connection.fetch(_LACKING)
    if lacking:
        told = ", ".join(f"{line['right']} on ledger.{line['relation']}" for line in lacking)
        raise Corrupt(f"role {user} lacks {told}: {again}")
    for line in await connection.fetch(_SETTINGS, list(_DURABLE)):
        name = line["name"]
        raise Corrupt(f"Postgres runs with {name} off: {_DURABLE[name]}; set {name} = on")
    if partitions is not None:
        await _check_partitions(connection, partitions)


async def _check_partitions(connection: asyncpg.Connection, partitions: int) -> None:
    last = await connection.fetchval(_FENCES)
    if last is not None and last >= partitions:
        raise Corrupt(
            f"the ledger has a fence for partition {last} and HEADRACE_PARTITIONS is {partitions}:"
            " accounts would be at home elsewhere"
        )
    for line in await connection.fetch(_ACCOUNTS):
        opened = line["account_no"] & ((1 << PARTITION_BITS) - 1)
        try:
            home = home_of(line["account_id"], partitions)
        except Rejected as error:
            raise Corrupt(f"account {line['account_no']}: {error}: run the audit") from error
        if home != opened:
            raise Corrupt(
                f"{line['account_id']} was opened on partition {opened}, and HEADRACE_PARTITIONS ="
                f" {partitions} puts it on {home}: set it to what the ledger was made with"
            )
