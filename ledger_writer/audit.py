"""Proves the ledger from Postgres alone, as a reader: `headrace ledger audit`.

Reads every row of every partition, verifies the chain, derives every balance anew and compares it
with the tables; each identity must be that of its row. All in one snapshot, so a writer may be at
work meanwhile; in bounded memory but for one entry a share. Prints its progress, and one JSON
object last; exit 1 when anything is wrong, with the first broken row.
"""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from ledger_writer.claims import Claims
from ledger_writer.connection import LONG_S, connected
from ledger_writer.copied import COLUMNS, Name, Taker
from ledger_writer.cuts import NO_CUT, newest_cut
from ledger_writer.findings import Watch
from ledger_writer.limits import limit_findings
from ledger_writer.lines import FENCES, NAMES, account_at, fence_at, hold_at, link_at
from ledger_writer.progress import Progress
from ledger_writer.verify import FINDINGS_MAX, Balance, Finding, Verifier
from schemas.environment import SettingError, read
from schemas.errors import HeadraceError, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledger_writer.model import Fence

_ACCOUNTS: Final = "select * from ledger.accounts"
_HOLDS: Final = "select *, remaining_minor as stored_minor from ledger.holds"
_REVERSALS: Final = "select * from ledger.reversals"
_LINKS: Final = "select *, true as stored from ledger.links"
_PLACE: Final = ("original_partition", "original_position", "leg")
_SHARES: Final = "select * from ledger.shares"
_COLUMNS: Final = ", ".join(COLUMNS)
_ROWS: Final = (
    f"select {_COLUMNS} from ledger.journal"  # noqa: S608  our own names
    " where partition = $1 order by position"
)
_COUNT: Final = "select count(*) from ledger.journal"
_ROOMS: Final = """
    select a.account_id, r.promised_minor from ledger.rooms r
      left join ledger.accounts a using (account_no)"""
_OVERPAID: Final = """
    select r.* from ledger.reversals r
      left join ledger.journal j
        on j.partition = r.original_partition and j.position = r.original_position
      left join ledger.holds h
        on j.type = 'hold.placed' and h.hold_id = j.extra -> 'hold' ->> 'hold_id'
      left join ledger.links l
        on j.type = 'transfer.prepared' and l.link_id = j.saga_id || '/' || r.leg
       and l.kind = 'debit' and l.state = 'committed'
     where r.original_position >= ledger.kept_from(r.original_partition)
       and r.reversed_minor > coalesce(
           h.captured_minor, l.amount_minor,
           case when j.type = 'transfer.posted' then j.entries[r.leg * 10 + 8] end, 0)
     order by r.original_partition, r.original_position, r.leg"""


class _Enough(Exception):
    """As much is wrong as is worth telling."""


async def audit(
    reader_dsn: str, partitions: int, progress: Progress | None = None
) -> dict[str, Any]:
    """Return what was checked and found; `ok` is true when nothing was."""
    watch = Watch()
    reading = _Reading(partitions, progress or Progress(None))
    async with (
        connected(reader_dsn, "audit", LONG_S, bytea_output="hex") as connection,
        connected(reader_dsn, "audit", LONG_S) as other,
        connection.transaction(isolation="repeatable_read", readonly=True),
        other.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(NO_CUT)
        snapshot = await connection.fetchval("select pg_export_snapshot()")
        await other.execute(f"set transaction snapshot '{snapshot}'")
        await reading.run(connection, other)
    verifier = reading.verifier
    return watch.told(verifier, reading.findings) | {
        "accounts": len(verifier.accounts),
        "heads": {
            str(chain.partition): {"position": chain.position, "chain_hash": chain.seal.hex()}
            for chain in verifier.chains.values()
        },
        "detached": reading.detached,
    }


class _Reading:
    """One audit under way."""

    def __init__(self, partitions: int, progress: Progress) -> None:
        self.findings: list[Finding] = []
        self.verifier = Verifier()
        self.detached: dict[str, Any] | None = None
        self._partitions = partitions
        self._progress = progress

    async def run(self, connection: asyncpg.Connection, other: asyncpg.Connection) -> None:
        """Check all there is, until there are findings enough."""
        fences = [fence_at(line) for line in await connection.fetch(FENCES)]
        names = {
            str(line["account_no"]): Name(*line.values()) for line in await connection.fetch(NAMES)
        }
        cut = await newest_cut(connection)
        if cut.anchors:
            self.verifier = cut.verifier()
            self.detached = {"before": cut.kept, "state_hash": cut.state_hash.hex()}
        taker = Taker(self.verifier, names)
        try:
            async with Claims.read(other, cut.kept) as claims:
                for fence in fences:
                    await self._rows(connection, taker, claims, fence.partition)
                self._found(await claims.left())
                self._found(cut.findings(claims.detached()))
            await self._tables(connection, fences)
        except _Enough:
            return

    async def _rows(
        self, connection: asyncpg.Connection, taker: Taker, claims: Claims, partition: int
    ) -> None:
        """Read a partition's rows until there are no more, whatever the fence says."""
        rest = ""

        async def take(data: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + data.decode()).split("\n")
            if lines:
                keys = await claims.until(partition, int(lines[-1].split("\t", 1)[0]))
                self._found(taker.take(partition, lines, keys))
                self._found(claims.doubled())
                self._progress.say(f"partition {partition}", self.verifier.rows)

        await connection.copy_from_query(_ROWS, partition, output=take, format="text")

    async def _tables(self, connection: asyncpg.Connection, fences: list[Fence]) -> None:
        accounts = {}
        for line in await connection.fetch(_ACCOUNTS):
            try:
                accounts[line["account_no"]] = account_at(line, self._partitions)
            except Rejected as error:
                self._found([Finding(0, 0, f"account {line['account_no']}: {error}")])
        lines = await connection.fetch(_SHARES)
        shares = {
            (line["account_no"], line["share"]): Balance(
                line["posted_minor"], line["held_minor"], line["version"]
            )
            for line in lines
        }
        reversals = await connection.fetch(_REVERSALS)
        links = await connection.fetch(_LINKS)
        verifier = self.verifier
        self._found(
            verifier.close(
                fences,
                shares,
                accounts,
                holds={h["hold_id"]: hold_at(h) for h in await connection.fetch(_HOLDS)},
                reversals={
                    (*(r[name] for name in _PLACE),): r["reversed_minor"] for r in reversals
                },
                links={(k["link_id"], k["kind"]): link_at(k) for k in links},
            )
        )
        self._found(limit_findings(lines, accounts))
        owners = {(*(r[name] for name in _PLACE),): r["partition"] for r in reversals}
        self._found(
            Finding(owner, 0, f"{place} was paid back by another partition")
            for place, owner in owners.items()
            if verifier.derived.payers.get(place, owner) != owner
        )
        count = await connection.fetchval(_COUNT)
        if count != verifier.rows:
            problem = f"{count} rows in the journal, {verifier.rows} in the chains"
            self._found([Finding(0, 0, problem)])
        promised = verifier.derived.links.promised()
        rooms = {r["account_id"]: r["promised_minor"] for r in await connection.fetch(_ROOMS)}
        self._found(
            Finding(0, 0, f"{rooms.get(account_id, 0)} is promised of {account_id}, not {minor}")
            for account_id, minor in (dict.fromkeys(rooms, 0) | promised).items()
            if rooms.get(account_id, 0) != minor
        )
        self._found(
            Finding(
                r["original_partition"],
                r["original_position"],
                f"of leg {r['leg']}, {r['reversed_minor']} was paid back, more than it moved",
            )
            for r in await connection.fetch(_OVERPAID)
        )

    def _found(self, found: Iterable[Finding]) -> None:
        self.findings += islice(found, FINDINGS_MAX - len(self.findings))
        if len(self.findings) >= FINDINGS_MAX:
            raise _Enough


def main() -> int:
    """Print the audit as JSON; 0 when all is well."""
    try:
        settings = read(os.environ, "HEADRACE_LEDGER_READER_DSN", "HEADRACE_PARTITIONS")
        result = asyncio.run(
            audit(
                settings["ledger_reader_dsn"],
                settings["partitions"],
                Progress("ledger audit"),
            )
        )
    except (SettingError, HeadraceError) as error:
        print(f"ledger audit: {error}", file=sys.stderr)
        return 2
    print(orjson.dumps(result).decode())
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
