"""Brings the reading side up to date with the journal.

Each writer process does so by itself now and then, on a connection of its own; `headrace ledger
index` does it at once. One span a transaction, as the writer's role, and by one process at a time.
The writers neither wait for it nor look at what it makes, and a crash loses at most the span
under way. Without it past balances are right all the same, and slower to find.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Final

from ledger_writer.connection import connected
from schemas import logs
from schemas.environment import SettingError, read
from schemas.errors import HeadraceError

if TYPE_CHECKING:
    import asyncpg

WITHIN_S: Final = 120.0
EVERY_S: Final = 30.0
SPANS_MAX: Final = 256
"""Bound of one pass of `keep_indexed`: four million rows, which take it a minute and a half."""
RESTS: Final = 3.0
"""How many times as long as a span took `keep_indexed` rests after it, so that a pass after a busy
half minute takes a quarter of a core for a while, and not all of it at once from those who commit.
"""
LOCK: Final = 7239003

_PARTITIONS: Final = "select partition from ledger.partitions order by partition"
_ALONE: Final = "select pg_try_advisory_lock($1)"
_INDEX: Final = "select ledger.index_journal($1)"


async def index(writer_dsn: str, spans_max: int | None = None, rests: float = 0.0) -> int:
    """Index what is full, or so many spans of it; return how many that were.

    None of it when another process is at it, which will get to all that is full; `rests` as RESTS.
    """
    async with connected(writer_dsn, "index", WITHIN_S) as connection:
        alone = await connection.fetchval(_ALONE, LOCK)
        return await _spans(connection, spans_max, rests) if alone else 0


async def _spans(connection: asyncpg.Connection, spans_max: int | None, rests: float) -> int:
    spans = 0
    for line in await connection.fetch(_PARTITIONS):
        while spans_max is None or spans < spans_max:
            began_s = time.perf_counter()
            if not await connection.fetchval(_INDEX, line["partition"]):
                break
            spans += 1
            await asyncio.sleep(rests * (time.perf_counter() - began_s))
    return spans


async def keep_indexed(writer_dsn: str, every_s: float = EVERY_S) -> None:
    """Index now and then, a bounded part at a time, until cancelled; trouble can wait."""
    while True:
        await asyncio.sleep(every_s)
        try:
            spans = await index(writer_dsn, SPANS_MAX, RESTS)
        except HeadraceError as trouble:
            logs.get().warning("not indexed", detail=str(trouble))
        else:
            if spans:
                logs.get().info("indexed", spans=spans)


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
