"""Reads what a run left in Kafka and Postgres, and has Postgres write down the order of commits.

The order comes from a trigger of the drill's own: at the very end of each commit it takes a lock,
which the next commit gets only when this one is visible, and notes which rows it wrote. So readers
see exactly the commits up to some number. It changes nothing of the ledger's, and slows commits to
one at a time; everything before their last moment still overlaps.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from deploy.local.home import PROJECT
from loadtest.drills.ledger_check import Commit, Evidence, Logged
from loadtest.kafka_log import LogReader, all_partitions

if TYPE_CHECKING:
    import asyncpg

AUDIT_WITHIN_S: Final = 60.0
TOPICS: Final = ("ledger.commands", "ledger.events", "ledger.commands.dlq")

OBSERVE: Final = """
    create schema drill;
    create table drill.commits (
        number         int8 generated always as identity primary key,
        partition      int2 not null,
        position       int8 not null,
        next_position  int8 not null,
        first_offset   int8 not null,
        next_offset    int8 not null
    );
    create function drill.note() returns trigger language plpgsql security definer
        set search_path = pg_catalog, pg_temp as $$
    begin
        perform pg_advisory_xact_lock(7239999);
        insert into drill.commits (partition, position, next_position, first_offset, next_offset)
        values (new.partition, old.next_position, new.next_position, old.next_offset,
                new.next_offset);
        return null;
    end $$;
    create constraint trigger note after update on ledger.partitions
        deferrable initially deferred for each row
        when (old.next_offset <> new.next_offset or old.next_position <> new.next_position)
        execute function drill.note();
    grant usage on schema drill to ledger_reader;
    grant select on drill.commits to ledger_reader;
"""

_COMMITS: Final = """
    select partition, position, next_position, first_offset, next_offset
      from drill.commits order by number"""

_TABLES: Final = {
    "accounts": """
        select account_id, tenant, currency, min_balance_minor, max_balance_minor, debits_frozen,
               credits_frozen, closed from ledger.accounts""",
    "shares": """
        select a.account_id, s.share, s.posted_minor, s.held_minor, s.version
          from ledger.shares s join ledger.accounts a using (account_no)""",
    "balances": """
        select account_id, posted_minor, held_minor, available_minor from ledger.balances""",
    "holds": """
        select hold_id, partition, source, destination, currency, amount_minor, remaining_minor,
               captured_minor, expires_at_us, state from ledger.holds""",
    "reversals": """
        select original_partition, original_position, leg, reversed_minor from ledger.reversals""",
    "identities": """
        select replace(key::text, '-', '') as key, partition, position from ledger.identities""",
    "partitions": """
        select partition, next_position, log_time_us, poisoned, encode(chain_hash, 'hex') as hash
          from ledger.partitions""",
    "rows": """
        select partition, position, command_offset, type, reason, repeated, chain_hash
          from ledger.outcomes""",
    "entries": """
        select share, position, ordinal, account_id, currency, version, amount_minor,
               posted_minor, held_minor from ledger.entries""",
}


async def gather(bootstrap: str, reader: asyncpg.Connection, partitions: int) -> Evidence:
    """Read everything; nothing is under way any more."""
    places = all_partitions(TOPICS, partitions)
    async with LogReader(bootstrap, places) as logs:
        await logs.advance()
        topics = {name: _by_partition(logs.logs[name], partitions) for name in TOPICS}
    lines: dict[str, list[Any]] = {}
    async with reader.transaction(isolation="repeatable_read", readonly=True):
        commits = [Commit(*line) for line in await reader.fetch(_COMMITS)]
        for name, sql in _TABLES.items():
            lines[name] = [dict(line) for line in await reader.fetch(sql)]
    commands, events, dead = (topics[name] for name in TOPICS)
    return Evidence(partitions, commands, events, dead, commits, lines)


async def audit(reader_dsn: str, partitions: int) -> list[str]:
    """Run the ledger's own audit: the chain, and every balance derived from the rows."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ledger_writer.audit"),
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT),
            "HEADRACE_LEDGER_READER_DSN": reader_dsn,
            "HEADRACE_PARTITIONS": str(partitions),
        },
        cwd=PROJECT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(AUDIT_WITHIN_S):
        said, _ = await process.communicate()
    return [] if process.returncode == 0 else [f"audit: {said.decode()[:2000]}"]


def _by_partition(log: Any, partitions: int) -> dict[int, list[Logged]]:
    found: defaultdict[int, list[Logged]] = defaultdict(list)
    for number in range(partitions):
        found[number] = []
    columns = zip(
        log.partitions, log.offsets, log.timestamps_ms, log.keys, log.values, log.headers,
        strict=True,
    )  # fmt: skip
    for partition, offset, at_ms, key, value, headers in columns:
        found[partition].append(Logged(offset, at_ms, key, value or b"", dict(headers)))
    return dict(found)
