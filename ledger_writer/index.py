"""Brings the reading side up to date with the journal: `python -m ledger_writer.index`.

Indexes each full span that is not indexed yet, one span a transaction, as the writer's role. It may
run at any time beside the writers, who neither wait for it nor look at what it makes; several at
once take turns. Without it past balances are right all the same, and slower to find.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

import asyncpg

from ledger_writer.refusal import translated
from schemas.environment import SettingError, read
from schemas.errors import HeadraceError

TIMEOUT_S: Final = 120.0

_PARTITIONS: Final = "select partition from ledger.partitions order by partition"
_INDEX: Final = "select ledger.index_journal($1)"


async def index(writer_dsn: str) -> int:
    """Index what is full; return how many spans that were."""
    with translated("index"):
        connection = await asyncpg.connect(writer_dsn, command_timeout=TIMEOUT_S)
        try:
            spans = 0
            for line in await connection.fetch(_PARTITIONS):
                while await connection.fetchval(_INDEX, line["partition"]):
                    spans += 1
            return spans
        finally:
            await connection.close(timeout=TIMEOUT_S)


def main() -> int:
    """Index, and say what was done."""
    try:
        dsn = read(os.environ, "HEADRACE_LEDGER_DSN")["ledger_dsn"]
        spans = asyncio.run(index(dsn))
    except (SettingError, HeadraceError) as error:
        print(f"ledger index: {error}", file=sys.stderr)
        return 1
    print(f"ledger index: {spans} spans indexed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
