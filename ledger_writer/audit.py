"""Proves the ledger from Postgres alone, as a reader: `python -m ledger_writer.audit`.

Reads every row of every partition, verifies the chain, derives every balance anew and compares it
with the tables. Prints one JSON object; exit 1 when anything is wrong, with the first broken row.
A writer may be at work meanwhile: rows, fences and shares are read in one snapshot.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from ledger_writer.postgres import PostgresJournal, account_at, fence_at, hold_at
from ledger_writer.refusal import translated
from ledger_writer.verify import FINDINGS_MAX, Balance, Finding, Verifier
from schemas.environment import SettingError, read
from schemas.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ledger_writer.model import Row

ROWS_AT_ONCE: Final = 2_000
TIMEOUT_S: Final = 120.0

_ACCOUNTS: Final = "select * from ledger.accounts"
_HOLDS: Final = "select *, remaining_minor as stored_minor from ledger.holds"
_REVERSALS: Final = "select * from ledger.reversals"
_SHARES: Final = "select account_no, share, posted_minor, held_minor, version from ledger.shares"
_FENCES: Final = "select * from ledger.partitions order by partition"
_CLAIMS: Final = """
    select count(*) from ledger.identities i
      left join ledger.journal j using (partition, position)
     where j.position is null or j.repeats_position is not null
        or i.key is distinct from ledger.claimed(j.identity, j.saga_id, j.step, j.attempt)"""
_UNCLAIMED: Final = """
    select count(*) from ledger.journal j
     where j.repeats_position is null and j.reason is distinct from 'idempotency_key_reused'
       and (j.extra is null or j.extra ->> 'dry_run' is null)
       and not exists (
           select from ledger.identities i
            where i.key = ledger.claimed(j.identity, j.saga_id, j.step, j.attempt)
              and i.partition = j.partition and i.position = j.position)"""
_OVERPAID: Final = """
    select count(*) from ledger.reversals r
      left join ledger.journal j
        on j.partition = r.original_partition and j.position = r.original_position
      left join ledger.holds h
        on j.type = 'hold.placed' and h.hold_id = j.extra -> 'hold' ->> 'hold_id'
     where r.reversed_minor > coalesce(h.captured_minor, j.entries[r.leg * 10 + 8], 0)"""
_COUNTS: Final = (
    (_CLAIMS, "identities name another row"),
    (_UNCLAIMED, "rows claim nothing"),
    (_OVERPAID, "reversals paid back more than was moved"),
)


async def audit(reader_dsn: str, partitions: int) -> dict[str, Any]:
    """Return what was checked and found; `ok` is true when nothing was."""
    began = time.perf_counter()
    verifier = Verifier()
    findings: list[Finding] = []
    with translated("audit"):
        connection = await asyncpg.connect(reader_dsn, command_timeout=TIMEOUT_S)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                findings += await _findings(connection, verifier, partitions)
        finally:
            await connection.close(timeout=TIMEOUT_S)
    seconds = time.perf_counter() - began
    return {
        "ok": not findings,
        "rows": verifier.rows,
        "entries": verifier.entries,
        "accounts": len(verifier.accounts),
        "debited_minor": dict(verifier.debited_minor),
        "seconds": round(seconds, 3),
        "rows_per_second": round(verifier.rows / seconds),
        "findings": [
            {"partition": f.partition, "position": f.position, "problem": f.problem}
            for f in findings
        ],
    }


async def _findings(
    connection: asyncpg.Connection, verifier: Verifier, partitions: int
) -> list[Finding]:
    findings: list[Finding] = []
    journal = PostgresJournal(connection, partitions)
    fences = [fence_at(line) for line in await connection.fetch(_FENCES)]
    for fence in fences:
        async for row in _rows(journal, fence.partition):
            found = verifier.take(fence.partition, row)
            findings += islice(found, FINDINGS_MAX - len(findings))
            if len(findings) >= FINDINGS_MAX:
                return findings
    shares = {
        (line["account_no"], line["share"]): Balance(
            line["posted_minor"], line["held_minor"], line["version"]
        )
        for line in await connection.fetch(_SHARES)
    }
    accounts = [account_at(line, partitions) for line in await connection.fetch(_ACCOUNTS)]
    found = verifier.close(
        fences,
        shares,
        {account.account_no: account for account in accounts},
        holds={line["hold_id"]: hold_at(line) for line in await connection.fetch(_HOLDS)},
        reversals={
            (line["original_partition"], line["original_position"], line["leg"]): line[
                "reversed_minor"
            ]
            for line in await connection.fetch(_REVERSALS)
        },
    )
    findings += islice(found, FINDINGS_MAX - len(findings))
    for sql, what in _COUNTS:
        count = await connection.fetchval(sql)
        if count:
            findings.append(Finding(0, 0, f"{count} {what}"))
    return findings


async def _rows(journal: PostgresJournal, partition: int) -> AsyncIterator[Row]:
    """Read a partition's rows until there are no more, however many the fence says there are."""
    first = 1
    while rows := await journal.rows(partition, first, ROWS_AT_ONCE):
        for row in rows:
            yield row
        first = rows[-1].position + 1


def main() -> int:
    """Print the audit as JSON; 0 when all is well."""
    try:
        settings = read(os.environ, "HEADRACE_LEDGER_READER_DSN", "HEADRACE_PARTITIONS")
        result = asyncio.run(audit(settings["ledger_reader_dsn"], settings["partitions"]))
    except (SettingError, HeadraceError) as error:
        print(f"ledger audit: {error}", file=sys.stderr)
        return 2
    print(orjson.dumps(result).decode())
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
