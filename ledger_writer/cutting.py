"""What a cut of the journal would take, and why it may not: read as the owner, changes nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from ledger_writer.cuts import newest_cut
from ledger_writer.lines import FENCES
from ledger_writer.operations import OPEN
from schemas.errors import Rejected

if TYPE_CHECKING:
    import asyncpg

    from ledger_writer.cuts import Cut
    from ledger_writer.verify import Verifier

_TABLES: Final = """
    select c.relname as name, pg_get_expr(c.relpartbound, c.oid) as bounds
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'ledger.journal'::regclass"""
_BOUNDS: Final = re.compile(r"FROM \('(\d+)'\) TO \('(\d+)'\)")
_BOOKED: Final = "select booked_at_us from ledger.journal where partition = $1 and position = $2"
_INDEXED: Final = """
    select p.partition, coalesce(i.next_span, 0) * ledger.index_span() as indexed
      from ledger.partitions p left join ledger.indexed i using (partition)"""
_OPEN_HOLDS: Final = "select hold_id from ledger.holds where state = 'open' and hold_id = any($1)"
_OPEN_LINKS: Final = "select link_id from ledger.links where state = 'open' and link_id = any($1)"
_UNTOLD: Final = """
    select j.partition, j.position from ledger.partitions p
      join ledger.journal j on j.partition = p.partition and j.position > p.published_position
     where j.repeats_position < $1 limit 1"""

Table = tuple[int, int, str]
"""First position, first position beyond, and name."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be cut off, and what was cut off before."""

    before: int
    tables: list[Table]
    fences: list[asyncpg.Record]
    cut: Cut

    @property
    def first(self) -> dict[int, int]:
        """The first position of each partition that the journal has now."""
        kept = self.cut.kept
        return {f["partition"]: kept.get(f["partition"], 1) for f in self.fences}


async def plan_of(connection: asyncpg.Connection, before: tuple[int | None, int | None]) -> Plan:
    fences = await connection.fetch(FENCES)
    if not fences:
        raise Rejected("before", "the ledger is empty")
    tables = []
    for line in await connection.fetch(_TABLES):
        bounds = _BOUNDS.search(line["bounds"])
        assert bounds is not None, line["bounds"]
        tables.append((int(bounds[1]), int(bounds[2]), line["name"]))
    tables.sort()
    cut = await newest_cut(connection)
    position, time_us = before
    if position is None:
        assert time_us is not None
        position = await _position_before(connection, fences, tables, time_us)
    if position <= min(cut.kept.values(), default=0):
        return Plan(position, [], fences, cut)
    ends = [end for _, end, _ in tables]
    if position not in ends:
        told = ", ".join(map(str, ends[:-1])) or "there is none yet"
        raise Rejected("before", f"{position} is not where a table begins: {told}")
    for fence in fences:
        if fence["next_position"] < position:
            told = f"partition {fence['partition']} has only come to {fence['next_position'] - 1}"
            raise Rejected("before", f"{position} is too far: {told}, its next rows belong there")
    return Plan(position, [each for each in tables if each[1] <= position], fences, cut)


async def _position_before(
    connection: asyncpg.Connection,
    fences: list[asyncpg.Record],
    tables: list[Table],
    time_us: int,
) -> int:
    """Return the last end of a table before which every row was booked before this time."""
    found = tables[0][0]
    for _, end, _ in tables:
        booked = [await connection.fetchval(_BOOKED, f["partition"], end - 1) for f in fences]
        if not all(at_us is not None and at_us < time_us for at_us in booked):
            break
        found = end
    if found == 0:
        raise Rejected("before", "no table has only rows that were booked before this time")
    return found


async def check_unneeded(connection: asyncpg.Connection, plan: Plan) -> None:
    """Refuse while something still reads these rows: the index, or who publishes them."""
    for line in await connection.fetch(_INDEXED):
        if line["indexed"] < plan.before:
            told = f"partition {line['partition']} is indexed only before {line['indexed']}"
            raise Rejected("before", f"{told}: run `headrace ledger index` first")
    for fence in plan.fences:
        if fence["published_position"] < plan.before - 1:
            told = f"partition {fence['partition']} up to {fence['published_position']}"
            raise Rejected("before", f"events are known to be published only of {told}")
    untold = await connection.fetchrow(_UNTOLD, plan.before)
    if untold is not None:
        told = f"position {untold['position']} of partition {untold['partition']}"
        raise Rejected(
            "before",
            f"{told} repeats a row of the range, and is not known to be published: it is once the"
            " partition's next command is decided",
        )


async def check_closed(connection: asyncpg.Connection, verifier: Verifier) -> None:
    derived = verifier.derived
    holds = [hold.hold_id for hold in derived.holds.values() if hold.state == OPEN]
    links = [link.link_id for link in derived.links.known.values() if link.state == OPEN]
    still = await connection.fetch(_OPEN_HOLDS, holds) if holds else []
    still += await connection.fetch(_OPEN_LINKS, links) if links else []
    if still:
        told = f"{len(still)} holds or transfers of several homes that began in the range are open"
        raise Rejected("before", f"{told}, such as {still[0][0]}")
