"""The journal on Postgres: one connection a partition, one statement a batch.

Everything of a batch, the fence included, is written by one call of `ledger.commit_batch`, so
there is no transaction that a paused process could leave open. Whatever goes wrong on the way is
Unavailable with an unknown outcome; only acquiring the fence again tells, since that also ends
what an old connection may still have under way.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from ledger_writer import codec, packing
from ledger_writer.batch import ARGUMENTS, RARE_ARGUMENTS, arguments, rare_arguments
from ledger_writer.columns import account_numbers, only_place, restored
from ledger_writer.lines import fence_at, hold_at, link_at, standing_at
from ledger_writer.model import ARCHIVED, GENESIS, Fence, Row, Standing
from ledger_writer.operations import Elsewhere, Hold, LegPlace, Link, LinkKey
from ledger_writer.port import Verdict
from ledger_writer.refusal import AWAY, Refused, translated
from schemas.errors import Corrupt, Fenced, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from ledger_writer.model import Decision

CONNECT_TIMEOUT_S: Final = 5.0
CALL_TIMEOUT_S: Final = 15.0
CLOSE_TIMEOUT_S: Final = 1.0

# Plans must not depend on the first batches' sizes; the server gives up before the client does.
_SESSION: Final = {"plan_cache_mode": "force_generic_plan", "statement_timeout": "12s"}

_ACQUIRE: Final = "select * from ledger.acquire($1, $2)"
_ACQUIRE_AGAIN: Final = """
    update ledger.partitions set epoch = epoch + 1 where partition = $1 and epoch = $2
    returning *"""
_FENCE: Final = "select * from ledger.partitions where partition = $1"
_STANDINGS: Final = """
    select a.*, s.posted_minor, s.held_minor, s.version, f.foreign_minor,
           case when a.max_balance_minor is not null then (
                select r.promised_minor from ledger.rooms r where r.account_no = a.account_no)
           end as promised_minor
      from ledger.accounts a
      left join ledger.shares s on s.account_no = a.account_no and s.share = $1
      left join lateral (
           select coalesce(sum(o.posted_minor), 0)::int8 as foreign_minor from ledger.shares o
            where o.account_no = a.account_no and o.share <> $1) f on true
     where a.account_id = any($2)"""
_FOREIGN: Final = """
    select a.account_id, coalesce(sum(o.posted_minor), 0)::int8 as foreign_minor
      from ledger.accounts a
      left join ledger.shares o on o.account_no = a.account_no and o.share <> $1
     where a.account_id = any($2) group by a.account_no"""
_HOLDS: Final = """
    select *, remaining_minor as stored_minor from ledger.holds where hold_id = any($1)"""
_REVERSALS: Final = """
    select r.* from unnest($1::int2[], $2::int8[]) place(original_partition, original_position)
      join ledger.reversals r using (original_partition, original_position)"""
_ELSEWHERE: Final = """
    select a.account_id, coalesce(sum(o.posted_minor), 0)::int8 as posted_minor,
           coalesce(sum(o.held_minor), 0)::int8 as held_minor,
           ledger.incoming(a.account_id) as incoming_minor
      from ledger.accounts a
      left join ledger.shares o on o.account_no = a.account_no and o.share <> $1
     where a.account_id = any($2) group by a.account_no"""
_LINKS: Final = "select *, true as stored from ledger.links where link_id = any($1)"
_PLACES: Final = """
    select key, partition, position, position < ledger.kept_from(partition) as archived
      from ledger.identities where key = any($1)"""
_ROWS: Final = """
    select j.* from unnest($1::int2[], $2::int8[]) place(partition, position)
      join ledger.journal j using (partition, position) order by partition, position"""
_NAMES: Final = """
    select account_no, account_id, currency from ledger.accounts where account_no = any($1)"""
_ROW_TYPE: Final = """
    select 'ledger.new_row'::regtype::oid as row, 'ledger.new_row[]'::regtype::oid as rows,
           array_agg(atttypid order by attnum) as columns
      from pg_catalog.pg_attribute where attrelid = 'ledger.new_row'::regclass and attnum > 0"""
_ENSURE: Final = "select ledger.ensure_journal($1)"
_COMMIT, _COMMIT_RARE = (
    f"select ledger.commit_batch({', '.join(f'${number + 1}' for number in range(count))})"
    for count in (ARGUMENTS, RARE_ARGUMENTS)
)


class PostgresJournals:
    """Opens connections to the ledger database as the writer."""

    def __init__(self, dsn: str, worker: str, partitions: int) -> None:
        self._dsn = dsn
        self._session = {**_SESSION, "application_name": f"headrace {worker}"}
        self._partitions = partitions

    @asynccontextmanager
    async def open(self) -> AsyncIterator[PostgresJournal]:
        """Connect; Unavailable when that can't be done now."""
        with translated("connect"):
            connection = await asyncpg.connect(
                self._dsn,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=CALL_TIMEOUT_S,
                server_settings=self._session,
            )
        try:
            await _pack_arrays(connection)
            yield PostgresJournal(connection, self._partitions)
        except BaseException:
            connection.terminate()  # a statement may be under way: do not wait for it
            raise
        finally:
            with suppress(*AWAY):
                await connection.close(timeout=CLOSE_TIMEOUT_S)


class PostgresJournal:
    """One connection; see `port.Journal`."""

    def __init__(self, connection: asyncpg.Connection, partitions: int) -> None:
        self._connection = connection
        self._partitions = partitions
        self._ensure_at = 0

    async def acquire(self, partition: int, held_epoch: int | None) -> Fence:
        """Raise the epoch; waits for what an older holder has under way."""
        if held_epoch is None:
            found = await self._fetch("acquire", _ACQUIRE, partition, GENESIS)
        else:
            found = await self._fetch("acquire", _ACQUIRE_AGAIN, partition, held_epoch)
        if not found:
            raise Fenced(f"partition {partition}: another writer holds an epoch after {held_epoch}")
        return fence_at(found[0])

    async def fence(self, partition: int) -> Fence:
        """Return the fence as it is."""
        return fence_at((await self._fetch("fence", _FENCE, partition))[0])

    async def standings(self, partition: int, account_ids: Sequence[str]) -> dict[str, Standing]:
        """Return what is known of those of these accounts that exist."""
        found = await self._fetch("standings", _STANDINGS, partition, account_ids)
        return {line["account_id"]: standing_at(line, self._partitions) for line in found}

    async def foreign(self, partition: int, account_ids: Sequence[str]) -> dict[str, int]:
        """Return the sum of the other partitions' shares."""
        found = await self._fetch("foreign", _FOREIGN, partition, account_ids)
        return {line["account_id"]: line["foreign_minor"] for line in found}

    async def elsewhere(self, partition: int, account_ids: Sequence[str]) -> dict[str, Elsewhere]:
        """Return the sums of the other partitions' shares."""
        found = await self._fetch("elsewhere", _ELSEWHERE, partition, account_ids)
        return {
            line["account_id"]: Elsewhere(
                line["posted_minor"], line["held_minor"], line["incoming_minor"]
            )
            for line in found
        }

    async def holds(self, hold_ids: Sequence[str]) -> dict[str, Hold]:
        """Return those of these holds that exist."""
        found = await self._fetch("holds", _HOLDS, hold_ids)
        return {line["hold_id"]: hold_at(line) for line in found}

    async def links(self, link_ids: Sequence[str]) -> dict[LinkKey, Link]:
        """Return those of these links that exist."""
        found = await self._fetch("links", _LINKS, link_ids)
        return {(line["link_id"], line["kind"]): link_at(line) for line in found}

    async def reversals(self, places: Sequence[tuple[int, int]]) -> dict[LegPlace, int]:
        """Return how much was paid back of each leg of the rows at these places."""
        partitions, positions = zip(*places, strict=True)
        found = await self._fetch("reversals", _REVERSALS, partitions, positions)
        return {
            (line["original_partition"], line["original_position"], line["leg"]): line[
                "reversed_minor"
            ]
            for line in found
        }

    async def first_rows(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """Return the rows that claimed those of these keys that are claimed."""
        places = await self._fetch("identities", _PLACES, list(keys))
        rows = {
            (p["partition"], p["position"]): only_place(p["partition"], p["position"], ARCHIVED)
            for p in places
            if p["archived"]
        }
        wanted = [(p["partition"], p["position"]) for p in places if not p["archived"]]
        rows |= await self._rows_at(wanted)
        if any(place not in rows for place in wanted):
            raise Unavailable("ledger database, identities: their rows were detached meanwhile")
        return {p["key"].bytes: rows[p["partition"], p["position"]] for p in places}

    async def rows(self, partition: int, first: int, count: int) -> list[Row]:
        """Return rows in order of position."""
        places = [(partition, position) for position in range(first, first + count)]
        return list((await self._rows_at(places)).values())

    async def commit(self, before: Fence, after: Fence, decision: Decision) -> Verdict:
        """Write the decision and move the fence, or write nothing."""
        if after.next_position > self._ensure_at:
            found = await self._fetch("ensure journal", _ENSURE, after.next_position)
            self._ensure_at = found[0][0]
        sent, sql = arguments(before, after, decision), _COMMIT
        if decision.rare:
            sent, sql = (*sent, *rare_arguments(decision)), _COMMIT_RARE
        try:
            found = await self._fetch("commit", sql, *sent)
        except Refused as refusal:
            return refusal.verdict
        if found[0][0] == "fenced":
            raise Fenced(f"partition {before.partition}: epoch {before.epoch} is no longer newest")
        return Verdict(found[0][0])

    async def _rows_at(self, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Row]:
        """Return the rows at these places, with the first outcomes that they repeat."""
        lines = await self._lines_at(places)
        known = {(line["partition"], line["position"]): line for line in lines}
        told = {(line["repeats_partition"], line["repeats_position"]) for line in lines}
        origins = await self._lines_at(
            place for place in told if place[0] is not None and place not in known
        )
        names = await self._names([*lines, *origins])
        rows: dict[tuple[int, int], Row] = {
            (line["partition"], line["position"]): restored(line, names, None)
            for line in (*origins, *lines)
            if line["repeats_position"] is None
        }
        for line in lines:
            if line["repeats_position"] is not None:
                first_at = line["repeats_partition"], line["repeats_position"]
                origin = rows.get(first_at)
                if origin is None:
                    where = f"position {line['position']} of {line['partition']}"
                    raise Corrupt(f"{where} repeats {first_at}, which is not there any more")
                rows[line["partition"], line["position"]] = restored(line, names, origin)
        return {place: rows[place] for place in known}

    async def _lines_at(self, places: Iterable[tuple[int, int]]) -> list[asyncpg.Record]:
        wanted = list(places)
        if not wanted:
            return []
        partitions, positions = zip(*wanted, strict=True)
        return await self._fetch("rows", _ROWS, partitions, positions)

    async def _names(self, lines: list[asyncpg.Record]) -> dict[int, tuple[str, str]]:
        numbers = {number for line in lines for number in account_numbers(line)}
        found = await self._fetch("accounts", _NAMES, list(numbers)) if numbers else []
        return {line["account_no"]: (line["account_id"], line["currency"]) for line in found}

    async def _fetch(self, what: str, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        with translated(what):
            return await self._connection.fetch(sql, *arguments)


async def _pack_arrays(connection: asyncpg.Connection) -> None:
    """Have arrays packed by `packing`, whose form of a row must be the database's."""
    with translated("connect"):
        found = await connection.fetchrow(_ROW_TYPE)
    assert found is not None
    if tuple(found["columns"]) != packing.ROW_TYPES:
        raise Corrupt("ledger.new_row has other columns than this writer packs: versions differ")
    rows = partial(codec.packed_rows, found["row"])
    # The driver's public call takes codecs of scalar and composite types only.
    settings = connection._protocol.get_settings()  # type: ignore[attr-defined]  # noqa: SLF001
    for number, schema, name, pack, unpack in (
        (found["rows"], "ledger", "_new_row", rows, bytes),
        (
            packing.INT8_ARRAY,
            "pg_catalog",
            "_int8",
            codec.packed_numbers,
            packing.unpacked_numbers,
        ),
        (packing.UUID_ARRAY, "pg_catalog", "_uuid", packing.packed_keys, packing.unpacked_keys),
    ):
        settings.add_python_codec(number, name, schema, [], "scalar", pack, unpack, "binary")
