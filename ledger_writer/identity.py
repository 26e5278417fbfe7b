"""One id, one outcome: which key a command claims, and when it is a repeat.

A command that begins a saga (transfer.post, transfer.reject, hold.place, account.open), or has an
identity of its own (a capture, a refund, a freeze ...), claims its *identity*: whatever else comes
under the same identity, on any partition, is a repeat of that outcome or a conflict. A further step
under the saga's own identity (the expiry of a hold) claims (identity, step, attempt), and so does
what each of several homes is asked, under whatever identity. Keys are unique over all partitions. A
dry run claims nothing. Pure.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from ledger_writer.command import STEPPED, STEPS
from schemas.ids import IDENTITY_LENGTH

if TYPE_CHECKING:
    from ledger_writer.model import Command, Row

KEY_BYTES: Final = 16
REUSED: Final = "idempotency_key_reused"
ARCHIVED: Final = "outcome_archived"
"""The identity's first outcome was detached: a repeat can't be told from a conflict any more."""

OPENING_STEPS: Final = frozenset(STEPS.values())
"""Steps of the commands that begin a saga."""


def claim_key(command: Command) -> bytes:
    """Return the key that this command must be the first to use."""
    if command.type in STEPS:
        return key_of(command.identity)
    return key_of(_of_step(command))


def claimed_by(row: Row) -> bytes | None:
    """Return the key that this row must have claimed; None where it claims nothing."""
    if row.repeats is not None or row.reason in (REUSED, ARCHIVED) or is_dry(row):
        return None
    return key_of(row.identity if row.step in OPENING_STEPS else _of_step(row))


def _of_step(of: Command | Row) -> str:
    identity, step = of.identity, of.step
    if identity == of.saga_id[-IDENTITY_LENGTH:] or step.startswith(STEPPED):
        return f"{identity}/{step}/{of.attempt}"
    return identity


def is_dry(row: Row) -> bool:
    """Tell a trial's row. Metadata may hold these words too, but their quotes are escaped there."""
    return row.extra is not None and '"dry_run":true' in row.extra


def key_of(claimed: str) -> bytes:
    """Return the key of an identity, or of a step under it."""
    return sha256(claimed.encode()).digest()[:KEY_BYTES]


def repeats(command: Command, first: Row) -> bool:
    """Tell a repeat from a conflict: the same request, by the same tenant, for the same saga."""
    return (
        command.body_hash == first.body_hash
        and command.tenant == first.tenant
        and command.saga_id == first.saga_id
    )
