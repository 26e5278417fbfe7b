"""Derives `ledger.events` from journal rows: one event a row, the same bytes whenever it is asked.

The event follows from the row and, for a repeat, from the first outcome's row; nothing else. So
what is published from memory right after a commit equals what is rebuilt from the tables after a
crash. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from ledger_writer.model import Entry, Row
from schemas.ids import command_id, event_id, slot_of
from schemas.wire import encoder

COMMANDS: Final = "ledger.commands"
EVENTS: Final = "ledger.events"

DETAILS: Final[dict[str, str]] = {
    "account_closed": "An account of this leg is closed.",
    "account_exists": "The account is open already.",
    "account_frozen": "An account of this leg is frozen.",
    "account_not_found": "An account of this leg does not exist.",
    "balance_limit_exceeded": "The credited account may not hold that much.",
    "currency_mismatch": "An account of this leg has another currency.",
    "currency_unknown": "The currency is not an active ISO 4217 code.",
    "idempotency_key_reused": "The idempotency key was used before with another request.",
    "insufficient_funds": "The debited account has not enough available.",
    "limits_invalid": "Zero must lie within the limits; an external account has none.",
    "same_account": "Source and destination are the same account.",
    "wrong_partition": "This movement must be decided at the home of another account.",
}
"""What people read beside a reason; a reason that came with the command has no detail."""


def event_of(row: Row) -> dict[str, Any]:
    """Return the event that tells of this row, as a record of `ledger.events`."""
    told = row.repeats or row
    extra = told.extras() if told.extra else {}
    account = extra.get("account", {})
    return {
        "type": told.type,
        "event_id": event_id(COMMANDS, row.partition, row.command_offset, 0),
        "command_id": command_id(row.saga_id, row.step, row.attempt),
        "saga_id": row.saga_id,
        "tenant": row.tenant,
        "identity": row.identity,
        "body_hash": row.body_hash.hex(),
        "slot": slot_of(row.home_account),
        "home_account": row.home_account,
        "ledger_partition": row.partition,
        "position": row.position,
        "command_offset": row.command_offset,
        "booked_at_us": row.booked_at_us,
        "effective_at_us": told.effective_at_us,
        "transfer_id": told.transfer_id,
        "reason": told.reason,
        "detail": None if told.reason is None else DETAILS.get(told.reason),
        "failed_leg": told.failed_leg,
        "repeated": row.repeats is not None,
        "entries": [_side(entry, told.partition) for entry in told.entries],
        "chain_hash": row.chain_hash.hex(),
        "account_id": account.get("account_id"),
        "currency": account.get("currency"),
        "account_kind": account.get("kind"),
        "account_name": account.get("name"),
        "min_balance_minor": account.get("min_balance_minor"),
        "max_balance_minor": account.get("max_balance_minor"),
        "reference": extra.get("reference"),
        "metadata": extra.get("metadata", {}),
    }


def event_bytes(row: Row) -> bytes:
    """Return the event's value on the wire."""
    return encoder(EVENTS)(event_of(row))


def _side(entry: Entry, share: int) -> dict[str, Any]:
    return {
        "account_id": entry.account_id,
        "share": share,
        "version": entry.version,
        "amount_minor": entry.amount_minor,
        "currency": entry.currency,
        "posted_minor": entry.posted_minor,
        "held_minor": entry.held_minor,
    }
