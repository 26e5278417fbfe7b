"""Detaches the journal's beginning, as its owner: `headrace ledger detach --before ... --export F`.

The range must have been exported; the export is proved first, from the cut before, and what its
rows come to is kept, so that the rest can be proved without them. All is one transaction, in which
no batch commits: either the range is detached and its state recorded, or nothing changed. What was
claimed stays claimed. It must never detach a row that somebody may still need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ledger_writer.audit_export import audit_export, manifest_of
from ledger_writer.claims import Claims
from ledger_writer.connection import connected
from ledger_writer.cut import Anchor, state_hash, state_of
from ledger_writer.cutting import Plan, check_closed, check_unneeded, plan_of
from ledger_writer.progress import Progress
from schemas.errors import Corrupt, Rejected, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from ledger_writer.verify import Verifier

WITHIN_S: Final = 3_600.0
LOCKED_WITHIN: Final = "3s"

_LOOSE: Final = """
    select c.relname as name from pg_class c
     where c.relnamespace = 'ledger'::regnamespace and c.relkind = 'r'
       and c.relname ~ '^detached_[0-9]+$' order by c.relname"""
_LAST: Final = """
    select chain_hash, command_offset, booked_at_us from ledger.journal
     where partition = $1 and position = $2"""
# The order in which the writers and a change of flags take them; a batch under way ends first.
_HOLD_BATCHES: Final = (
    "select pg_advisory_xact_lock(7239002)",
    "select from ledger.partitions order by partition for update",
    "update ledger.partitions set accounts_version = accounts_version + 1",
)
_APPEND_ONLY: Final = """
    create trigger append_only before update or delete on ledger.{}
        for each row execute function ledger.refuse_change()"""
_ANCHOR: Final = """
    insert into ledger.detached (partition, first_position, chain_hash, command_offset,
        booked_at_us, claims_hash, state_hash, export_sha256)
    values ($1, $2, $3, $4, $5, $6, $7, $8)"""


async def detach(
    owner_dsn: str,
    before: tuple[int | None, int | None],
    export: Path | None,
    *,
    drop: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Detach what is before a position, or was booked before a time (us); return what was done."""
    async with connected(owner_dsn, "detach", WITHIN_S, lock_timeout=LOCKED_WITHIN) as connection:
        plan = await plan_of(connection, before)
        told: dict[str, Any] = {"before": plan.before, "tables": [name for *_, name in plan.tables]}
        loose = [line["name"] for line in await connection.fetch(_LOOSE)] if drop else []
        if not plan.tables:
            if loose and not dry_run:
                await _drop(connection, loose)
            return told | {"detached": False, "dropped": loose}
        await check_unneeded(connection, plan)
        verifier, sha256 = _proved(plan, export)
        await check_closed(connection, verifier)
        anchors = await _anchors(connection, plan)
        _check_same(verifier, anchors)
        if not dry_run:
            await _cut(connection, plan, anchors, verifier, sha256, drop=drop)
            await _drop(connection, loose)
        lines = {"rows": verifier.rows, "dropped": loose, "detached": not dry_run}
        return told | lines


def _proved(plan: Plan, export: Path | None) -> tuple[Verifier, bytes]:
    """Prove the export from the cut before; return what its rows come to."""
    first = min(plan.first.values())
    make = f"headrace ledger export journal --from {first} --to {plan.before - 1} --output FILE"
    if export is None:
        raise Rejected("export", f"make one first: {make}")
    manifest = manifest_of(export)
    covered = {part["partition"]: (part["from"], part["to"]) for part in manifest["partitions"]}
    wanted = {number: (start, plan.before - 1) for number, start in plan.first.items()}
    if covered != wanted:
        raise Rejected("export", f"{export} does not cover the range and no more: {make}")
    if plan.cut.altered:
        raise Corrupt("the cut before was altered: `headrace ledger audit` tells more")
    verifier = plan.cut.verifier()
    result = audit_export(export, Progress("ledger detach"), verifier)
    if not result["ok"]:
        worst = result["findings"][0]
        told = f"partition {worst['partition']}, position {worst['position']}: {worst['problem']}"
        raise Rejected("export", f"{export} does not verify: {told}")
    return verifier, bytes.fromhex(manifest["sha256"])


async def _anchors(connection: asyncpg.Connection, plan: Plan) -> list[Anchor]:
    kept = dict.fromkeys(plan.first, plan.before)
    async with Claims.read(connection, kept, plan.before) as claims:
        await claims.left()
    hashes = claims.detached()
    anchors = []
    for partition in sorted(kept):
        last = await connection.fetchrow(_LAST, partition, plan.before - 1)
        if last is None:
            raise Unavailable(f"position {plan.before - 1} of {partition} is not there any more")
        anchors.append(_anchor(partition, plan.before, last, hashes[partition]))
    return anchors


def _anchor(partition: int, before: int, last: asyncpg.Record, claims_hash: bytes) -> Anchor:
    return Anchor(
        partition,
        before,
        last["chain_hash"],
        last["command_offset"],
        last["booked_at_us"],
        claims_hash,
    )


def _check_same(verifier: Verifier, anchors: list[Anchor]) -> None:
    """Refuse an export, however sound, that does not end where this journal's range ends."""
    for anchor in anchors:
        chain = verifier.chain(anchor.partition)
        if chain.seal != anchor.chain_hash:
            told = f"the chain of partition {anchor.partition} at {chain.position}"
            raise Rejected("export", f"it is of another ledger: {told} differs")


async def _cut(
    connection: asyncpg.Connection,
    plan: Plan,
    anchors: list[Anchor],
    verifier: Verifier,
    sha256: bytes,
    *,
    drop: bool,
) -> None:
    """Record the cut and detach the tables, with no batch under way."""
    lines = state_of(verifier)
    state = state_hash(anchors, lines)
    async with connection.transaction():
        await connection.execute("delete from ledger.detached_state")
        await connection.copy_records_to_table(
            "detached_state", schema_name="ledger", records=lines, columns=("kind", "key", "value")
        )
        for anchor in anchors:
            values = msgspec.structs.astuple(anchor)
            await connection.execute(_ANCHOR, *values, state, sha256)
        for statement in _HOLD_BATCHES:
            await connection.execute(statement)
        await check_unneeded(connection, plan)
        for _, _, name in plan.tables:
            await connection.execute(f"alter table ledger.journal detach partition ledger.{name}")
            if drop:
                await connection.execute(f"drop table ledger.{name}")
            else:
                await _set_aside(connection, name)


async def _set_aside(connection: asyncpg.Connection, name: str) -> None:
    """Keep a detached table under a name of its own, as unchangeable as it was."""
    aside = name.replace("journal_", "detached_")
    for statement in (
        f"alter table ledger.{name} rename to {aside}",
        _APPEND_ONLY.format(aside),
        f"grant select on ledger.{aside} to ledger_reader",
    ):
        await connection.execute(statement)


async def _drop(connection: asyncpg.Connection, names: list[str]) -> None:
    for name in names:
        await connection.execute(f"drop table ledger.{name}")
