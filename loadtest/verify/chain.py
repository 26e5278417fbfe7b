"""The ledger's hash chain, recomputed from what its tables say. Pure.

`hash = SHA-256(hash before || canonical bytes)`, per partition from 32 zero bytes; the canonical
bytes are a compact JSON array of the row's fields in a fixed order (form 1), as the ledger
documents. This is a second implementation: it shares no code with the writer.
"""

from __future__ import annotations

import hashlib
import json
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from schemas.ids import home_account

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

FORM: Final = 1
Place = tuple[int, int]
"""(partition, position)."""


def broken(
    outcomes: pa.Table, entries: pa.Table, journal: pa.Table, ends: pa.Table
) -> tuple[int, list[dict[str, Any]]]:
    """Return how many rows were hashed, and the first broken row of each partition.

    After a broken row every later hash differs too, so that only the first says something. The
    fence's own hash must be that of the last row.
    """
    sides = _sides(entries)
    homes = dict(zip(_places(journal), journal["home_account"].to_pylist(), strict=True))
    stored_ends = dict(
        zip(ends["partition"].to_pylist(), ends["chain_hash"].to_pylist(), strict=True)
    )
    rows = sorted(outcomes.to_pylist(), key=itemgetter("partition", "position"))
    found = []
    for partition, group in groupby(rows, key=itemgetter("partition")):
        fault = _first_broken(list(group), sides, homes, stored_ends.get(partition))
        if fault is not None:
            found.append(fault)
    return len(rows), found


def _first_broken(
    rows: Sequence[Mapping[str, Any]],
    sides: Mapping[Place, list[tuple[Any, ...]]],
    homes: Mapping[Place, str | None],
    end: str | None,
) -> dict[str, Any] | None:
    before = bytes(32)
    for row in rows:
        place = (row["partition"], row["position"])
        line = canonical(row, sides.get(place, []), homes.get(place))
        before = hashlib.sha256(before + line).digest()
        if before.hex() != row["chain_hash"]:
            return {"partition": place[0], "position": place[1], "difference": "chain_hash"}
    if end is not None and end.removeprefix("\\x") != before.hex():
        last = rows[-1]["position"]
        return {"partition": rows[0]["partition"], "position": last, "difference": "fence's hash"}
    return None


def canonical(row: Mapping[str, Any], sides: Sequence[tuple[Any, ...]], home: str | None) -> bytes:
    """Return a row's canonical bytes; `home` is None where it follows from the first entries."""
    repeats = None
    if row["repeats_position"] is not None:
        repeats = (row["repeats_partition"], row["repeats_position"])
    fields = (
        FORM, row["partition"], row["position"], row["command_offset"], row["booked_at_us"],
        row["effective_at_us"], row["type"], row["tenant"], row["saga_id"], row["step"],
        row["attempt"], row["identity"], row["body_hash"], home or _home(sides),
        row["transfer_id"], row["reason"], row["failed_leg"], repeats, row["extra"], sides,
    )  # fmt: skip
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def _home(sides: Sequence[tuple[Any, ...]]) -> str:
    if not sides:
        return ""
    accounts = [side[0] for side in sides[:2]]
    return home_account(*accounts) if len(accounts) > 1 else str(accounts[0])


def _sides(entries: pa.Table) -> dict[Place, list[tuple[Any, ...]]]:
    names = ("account_id", "currency", "version", "amount_minor", "posted_minor", "held_minor")
    order = entries.sort_by(
        [("share", "ascending"), ("position", "ascending"), ("ordinal", "ascending")]
    )
    columns = [order[name].to_pylist() for name in names]
    places: Iterable[Place] = zip(
        order["share"].to_pylist(), order["position"].to_pylist(), strict=True
    )
    found: dict[Place, list[tuple[Any, ...]]] = {}
    for place, *side in zip(places, *columns, strict=True):
        found.setdefault(place, []).append(tuple(side))
    return found


def _places(table: pa.Table) -> list[Place]:
    return list(zip(table["partition"].to_pylist(), table["position"].to_pylist(), strict=True))
