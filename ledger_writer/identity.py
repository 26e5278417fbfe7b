"""One id, one outcome: which key a command claims, and when it is a repeat.

A command that opens a saga (transfer.post, transfer.reject, account.open) claims its *identity*:
whatever else comes under the same identity, on any partition, is a repeat of that outcome or a
conflict. A command that follows an opened saga claims (identity, step, attempt) of its own, so one
identity carries several steps. Keys are unique over all partitions. Pure.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from ledger_writer.command import OPEN, POST, REJECT

if TYPE_CHECKING:
    from ledger_writer.model import Command, Row

KEY_BYTES: Final = 16
_OPENING: Final = frozenset({POST, REJECT, OPEN})


def claim_key(command: Command) -> bytes:
    """Return the key that this command must be the first to use."""
    claimed = command.identity
    if command.type not in _OPENING:
        claimed = f"{command.identity}/{command.step}/{command.attempt}"
    return sha256(claimed.encode()).digest()[:KEY_BYTES]


def repeats(command: Command, first: Row) -> bool:
    """Tell a repeat from a conflict: the same request, by the same tenant, for the same saga."""
    return (
        command.body_hash == first.body_hash
        and command.tenant == first.tenant
        and command.saga_id == first.saga_id
    )
