"""Exports the journal, or an account's statement, as lines of JSON or CSV, in bounded memory.

All of an export is read in one snapshot, as a reader. A journal's export carries what an audit
needs; beside its file lies a manifest that says where each partition's chain begins and ends, so
that nothing can be cut off unseen.
"""

from __future__ import annotations

import csv
import io
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from ledger_writer.connection import LONG_S, connected
from ledger_writer.copied import COLUMNS, columns_of, row_of
from ledger_writer.cuts import ANCHORS, NO_CUT
from ledger_writer.exported import CSV_HEADER, csv_line, json_line
from ledger_writer.lines import FENCES, NAMES
from ledger_writer.model import GENESIS
from ledger_writer.progress import Progress
from schemas.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import asyncpg

LINES_AT_ONCE: Final = 1_000
FORM: Final = 1
FORMATS: Final = ("jsonl", "csv")

_COLUMNS: Final = ", ".join(COLUMNS)
_ROWS: Final = (
    f"select {_COLUMNS} from ledger.journal"  # noqa: S608  our own names
    " where partition = $1 and position between $2 and $3 order by position"
)
_SEAL: Final = """
    select chain_hash from ledger.journal where partition = $1 and position = $2
    union all
    select chain_hash from ledger.detached where partition = $1 and first_position = $2 + 1"""
_STATEMENT: Final = "select * from ledger.statement($1, $2, $3)"
_ACCOUNT: Final = "select from ledger.accounts where account_id = $1"


class Out(Protocol):
    """Where an export goes."""

    def write(self, text: str, /) -> object:
        """Take the next piece."""
        ...


@dataclass(frozen=True, slots=True)
class Range:
    """Which rows: of one partition or all, from one position to another, both included.

    From the first that the journal still has when no position is given.
    """

    partition: int | None = None
    first: int | None = None
    last: int | None = None


async def export_journal(
    reader_dsn: str, wanted: Range, form: str, out: Out, progress: Progress
) -> dict[str, Any]:
    """Write the rows; return the manifest."""
    writing = _Writing(out, progress)
    if form == "csv":
        writing.write(CSV_HEADER)
    line_of = csv_line if form == "csv" else json_line
    ranges = []
    async with _reading(reader_dsn) as connection:
        fences = await connection.fetch(FENCES)
        if wanted.partition is not None:
            fences = [line for line in fences if line["partition"] == wanted.partition]
            if not fences:
                raise Rejected("partition", f"--partition {wanted.partition} has no rows")
        names = {
            line["account_no"]: (line["account_id"], line["currency"])
            for line in await connection.fetch(NAMES)
        }
        cuts = {cut["partition"]: cut for cut in await connection.fetch(ANCHORS)}
        for line in fences:
            place = _place(line, wanted, cuts.get(line["partition"]))
            if place[2] >= place[1]:
                ranges.append(await _rows(connection, names, place, line_of, writing))
    if not ranges:
        raise Rejected("from", "it is beyond the last position")
    return {
        "form": FORM,
        "format": form,
        "rows": writing.lines,
        "sha256": writing.digest.hexdigest(),
        "partitions": ranges,
    }


async def export_statement(
    reader_dsn: str, account_id: str, between_us: tuple[int, int], form: str, out: Out
) -> int:
    """Write an account's entries booked in [from, to); return how many those were."""
    writing = _Writing(out, Progress(None))
    async with _reading(reader_dsn) as connection:
        if await connection.fetchrow(_ACCOUNT, account_id) is None:
            raise Rejected("account", f"{account_id} does not exist")
        prepared = await connection.prepare(_STATEMENT)
        names = [attribute.name for attribute in prepared.get_attributes()]
        if form == "csv":
            writing.write(",".join(names) + "\n")
        async for line in prepared.cursor(account_id, *between_us, prefetch=LINES_AT_ONCE):
            if form == "csv":
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerow(line.values())
                writing.add(text.getvalue())
            else:
                writing.add(orjson.dumps(dict(line)).decode() + "\n")
    return writing.lines


class _Writing:
    """What was written so far."""

    def __init__(self, out: Out, progress: Progress) -> None:
        self.lines = 0
        self.digest = sha256()
        self._out = out
        self._progress = progress

    def write(self, text: str) -> None:
        """Write text that is no row."""
        self.digest.update(text.encode())
        self._out.write(text)

    def add(self, line: str) -> None:
        """Write one row."""
        self.write(line)
        self.lines += 1

    def tell(self, partition: int) -> None:
        """Show how far it has come."""
        self._progress.say(f"partition {partition}", self.lines)


def _place(
    fence: asyncpg.Record, wanted: Range, cut: asyncpg.Record | None
) -> tuple[int, int, int]:
    """Return the partition, and the first and last position of it that are wanted and there."""
    kept = 1 if cut is None else cut["first_position"]
    if wanted.first is not None and wanted.first < kept:
        told = f"partition {fence['partition']} was detached before position {kept}"
        raise Rejected("from", f"{told}: what is older is in the export that was made then")
    end = fence["next_position"] - 1
    last = end if wanted.last is None else min(wanted.last, end)
    return fence["partition"], wanted.first or kept, last


async def _rows(
    connection: asyncpg.Connection,
    names: dict[int, tuple[str, str]],
    place: tuple[int, int, int],
    line_of: Callable[..., str],
    writing: _Writing,
) -> dict[str, Any]:
    """Write one partition's rows; return what the manifest says of them."""
    partition, first, last = place
    before = await connection.fetchval(_SEAL, partition, first - 1) or GENESIS
    rest, seal = "", before

    async def take(data: bytes) -> None:
        nonlocal rest, seal
        *lines, rest = (rest + data.decode()).split("\n")
        for line in lines:
            row = row_of(columns_of(partition, line.split("\t")), names)
            seal = row.chain_hash
            writing.add(line_of(row))
        writing.tell(partition)

    await connection.copy_from_query(_ROWS, *place, output=take, format="text")
    return {
        "partition": partition,
        "from": first,
        "to": last,
        "chain_hash_before": before.hex(),
        "chain_hash": seal.hex(),
    }


@asynccontextmanager
async def _reading(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    async with (
        connected(dsn, "export", LONG_S, bytea_output="hex") as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(NO_CUT)
        yield connection
