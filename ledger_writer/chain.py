"""The hash chain: what a row's bytes are, and how each row seals all rows before it.

`hash = SHA-256(hash of the row before || canonical bytes of this row)`, per partition, from
32 zero bytes. The canonical bytes are a compact JSON array in UTF-8, so that any language can
check them: `json.dumps(..., separators=(",", ":"), ensure_ascii=False)` gives the same. The form
is fixed for ever; a new field goes into `extra`, or into a new form with a new first element.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

import orjson
from msgspec.structs import force_setattr

if TYPE_CHECKING:
    from ledger_writer.model import Entry, Row

FORM: Final = 1


def canonical(row: Row) -> bytes:
    """Return the bytes of `row` that the chain runs over: all of it but the hash itself."""
    repeats = row.repeats
    return orjson.dumps(
        (
            FORM,
            row.partition,
            row.position,
            row.command_offset,
            row.booked_at_us,
            row.effective_at_us,
            row.type,
            row.tenant,
            row.saga_id,
            row.step,
            row.attempt,
            row.identity,
            row.body_hash.hex(),
            row.home_account,
            row.transfer_id,
            row.reason,
            row.failed_leg,
            None if repeats is None else (repeats.partition, repeats.position),
            row.extra,
            [_sides(entry) for entry in row.entries],
        )
    )


def link(before: bytes, row: Row) -> bytes:
    """Return the hash of `row`, given the hash of the row before it."""
    return sha256(before + canonical(row)).digest()


def seal(before: bytes, row: Row) -> bytes:
    """Give a row that was just made its hash, and return it."""
    sealed = link(before, row)
    # The row is frozen for everyone else; making it twice would cost more than its hash does.
    force_setattr(row, "chain_hash", sealed)
    return sealed


def _sides(entry: Entry) -> tuple[str, str, int, int, int, int]:
    return (
        entry.account_id,
        entry.currency,
        entry.version,
        entry.amount_minor,
        entry.posted_minor,
        entry.held_minor,
    )
