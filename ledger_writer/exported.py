"""The form of an exported journal: one row a line, as JSON or CSV, with all that its hash covers.

`read_json(json_line(row)) == row` but for what a repeat repeats, of which the place is kept. There
is one form for each row: a line that says the same otherwise is refused. Pure.
"""

from __future__ import annotations

import csv
import io
from typing import Any, Final

import orjson

from ledger_writer.columns import only_place
from ledger_writer.model import Entry, Row

FIELDS: Final = (
    "partition position command_offset booked_at_us effective_at_us type tenant saga_id step"
    " attempt identity body_hash home_account transfer_id reason failed_leg repeats_partition"
    " repeats_position extra entries chain_hash"
).split()
ENTRY_FIELDS: Final = (
    "account_no account_id currency version amount_minor posted_minor held_minor"
).split()
CSV_HEADER: Final = ",".join(FIELDS) + "\n"

_INTEGERS: Final = frozenset(
    "partition position command_offset booked_at_us effective_at_us attempt failed_leg"
    " repeats_partition repeats_position".split()
)
_NULLABLE: Final = frozenset(
    "transfer_id reason failed_leg repeats_partition repeats_position extra".split()
)
_EMPTY: Final = '""'
"""An empty text in a CSV field that may also have none."""


def json_line(row: Row) -> str:
    """Return the row as one line of JSON."""
    return orjson.dumps(_fields(row)).decode() + "\n"


def csv_line(row: Row) -> str:
    """Return the row as one line of CSV; entries as JSON in their field."""
    out = io.StringIO()
    fields = _fields(row)
    fields["entries"] = orjson.dumps(fields["entries"]).decode()
    values = [_EMPTY if v == "" and k in _NULLABLE else v for k, v in fields.items()]
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue()


def read_json(line: str) -> Row:
    """Return the row in a line of JSON; ValueError unless it is one, in the form we write."""
    row = _row(orjson.loads(line))
    if json_line(row) != line:
        raise ValueError("not in the form in which it was exported")
    return row


def read_csv(line: str) -> Row:
    """Return the row in a line of CSV; ValueError unless it is one, in the form we write."""
    try:
        [values] = csv.reader([line], strict=True)
    except csv.Error as error:
        raise ValueError(f"not CSV: {error}") from error
    if len(values) != len(FIELDS):
        raise ValueError(f"{len(values)} fields, not {len(FIELDS)}")
    found: dict[str, Any] = dict(zip(FIELDS, values, strict=True))
    for name in _NULLABLE:
        found[name] = None if found[name] == "" else found[name]
        found[name] = "" if found[name] == _EMPTY else found[name]
    for name in _INTEGERS:
        found[name] = None if found[name] is None else int(found[name])
    row = _row(found | {"entries": orjson.loads(found["entries"])})
    if csv_line(row) != line:
        raise ValueError("not in the form in which it was exported")
    return row


def _fields(row: Row) -> dict[str, Any]:
    repeats = row.repeats
    return {
        "partition": row.partition,
        "position": row.position,
        "command_offset": row.command_offset,
        "booked_at_us": row.booked_at_us,
        "effective_at_us": row.effective_at_us,
        "type": row.type,
        "tenant": row.tenant,
        "saga_id": row.saga_id,
        "step": row.step,
        "attempt": row.attempt,
        "identity": row.identity,
        "body_hash": row.body_hash.hex(),
        "home_account": row.home_account,
        "transfer_id": row.transfer_id,
        "reason": row.reason,
        "failed_leg": row.failed_leg,
        "repeats_partition": None if repeats is None else repeats.partition,
        "repeats_position": None if repeats is None else repeats.position,
        "extra": row.extra,
        "entries": [{name: getattr(entry, name) for name in ENTRY_FIELDS} for entry in row.entries],
        "chain_hash": row.chain_hash.hex(),
    }


def _row(found: Any) -> Row:
    try:
        first = None
        if found["repeats_position"] is not None:
            first = only_place(found["repeats_partition"], found["repeats_position"])
        return Row(
            found["partition"],
            found["position"],
            found["command_offset"],
            found["booked_at_us"],
            found["effective_at_us"],
            found["type"],
            found["tenant"],
            found["saga_id"],
            found["step"],
            found["attempt"],
            found["identity"],
            bytes.fromhex(found["body_hash"]),
            found["home_account"],
            found["transfer_id"],
            found["reason"],
            found["failed_leg"],
            first,
            found["extra"],
            tuple(Entry(*(entry[name] for name in ENTRY_FIELDS)) for entry in found["entries"]),
            bytes.fromhex(found["chain_hash"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a row of the journal: {error!r}") from error
