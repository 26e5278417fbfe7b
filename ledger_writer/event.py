"""Derives `ledger.events` from journal rows: one event a row, the same bytes whenever it is asked.

The event follows from the row and, for a repeat, from the first outcome's row; nothing else. So
what is published from memory right after a commit equals what is rebuilt from the tables after a
crash. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from ledger_writer.model import Row
from schemas.ids import command_id, event_id, slot_of
from schemas.wire import encoder

COMMANDS: Final = "ledger.commands"
EVENTS: Final = "ledger.events"

DETAILS: Final[dict[str, str]] = {
    "account_closed": "An account that this concerns is closed.",
    "account_exists": "The account is open already.",
    "account_frozen": "An account that this concerns is frozen.",
    "account_has_holds": "Something is held of this account; post or void its holds first.",
    "account_not_empty": "The account's balance is not zero.",
    "account_not_found": "An account that this concerns does not exist.",
    "already_prepared": "This was prepared here before.",
    "already_reversed": "All of it was paid back before.",
    "amount_exceeds_hold": "Less than that is left of the hold.",
    "amount_exceeds_original": "Less than that is left to pay back.",
    "balance_limit_exceeded": "The credited account may not hold that much.",
    "credit_needs_home": (
        "The credited account has a cap, which only its home can check, so nothing can be held for"
        " it from here. A transfer can be made instead."
    ),
    "currency_mismatch": "An account of this leg has another currency.",
    "currency_unknown": "The currency is not an active ISO 4217 code.",
    "dry_run_unsupported": "This can't be tried: only transfers, payments and holds can.",
    "hold_closed": "Nothing is left of the hold.",
    "hold_not_expired": "The hold's time is not over.",
    "hold_not_found": "There is no such hold here.",
    "idempotency_key_reused": "The idempotency key was used before with another request.",
    "insufficient_funds": "The debited account has not enough available.",
    "limits_invalid": "Zero must lie within the limits; an external account has none.",
    "homes_unavailable": "Not every home that must agree has answered in time.",
    "not_prepared": "Nothing was prepared here.",
    "original_archived": "The original is archived and can't be paid back by its id any more.",
    "original_leg_required": "Of a transfer of several legs, part can be paid back by leg only.",
    "original_not_found": "Nothing was moved under this id that could be paid back.",
    "outcome_archived": "The key was used before, and its outcome is archived. Nothing was done.",
    "same_account": "Source and destination are the same account.",
    "wrong_partition": "This must be decided at the home of another account.",
}
"""What people read beside a reason; a reason that came with the command has no detail."""

_LEG: Final = ("source", "destination", "amount_minor", "currency")
_NOTHING: Final[dict[str, Any]] = {
    "account_id": None,
    "currency": None,
    "account_kind": None,
    "account_name": None,
    "min_balance_minor": None,
    "max_balance_minor": None,
    "reference": None,
    "metadata": {},
    "hold_id": None,
    "amount_minor": None,
    "remaining_minor": None,
    "expires_at_us": None,
    "original_id": None,
    "original_leg": None,
    "dry_run": False,
    "reservation_id": None,
    "debits_frozen": None,
    "credits_frozen": None,
    "closed": None,
    "parts": [],
    "leg_indexes": [],
    "legs_total": None,
    "legs": [],
    "original_legs": [],
}


def event_of(row: Row) -> dict[str, Any]:
    """Return the event that tells of this row, as a record of `ledger.events`."""
    told = row.repeats or row
    event = {
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
        "entries": [
            {
                "account_id": entry.account_id,
                "share": told.partition,
                "version": entry.version,
                "amount_minor": entry.amount_minor,
                "currency": entry.currency,
                "posted_minor": entry.posted_minor,
                "held_minor": entry.held_minor,
            }
            for entry in told.entries
        ],
        "chain_hash": row.chain_hash.hex(),
        **_NOTHING,
    }
    if told.extra:
        event |= _rarities(told.extras())
    return event


def _rarities(extra: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that few events have; a hold's end tells how it came in `reason`."""
    account, hold, back, linked = (
        extra.get(name, {}) for name in ("account", "hold", "reversal", "linked")
    )
    found = {
        "account_id": account.get("account_id"),
        "currency": account.get("currency"),
        "account_kind": account.get("kind"),
        "account_name": account.get("name"),
        "min_balance_minor": account.get("min_balance_minor"),
        "max_balance_minor": account.get("max_balance_minor"),
        "reference": extra.get("reference"),
        "metadata": extra.get("metadata", {}),
        "hold_id": hold.get("hold_id"),
        "amount_minor": hold.get("amount_minor", back.get("amount_minor")),
        "remaining_minor": hold.get("remaining_minor", back.get("remaining_minor")),
        "expires_at_us": hold.get("expires_at_us"),
        "original_id": back.get("original_id"),
        "original_leg": back.get("leg"),
        "dry_run": extra.get("dry_run", False),
        "debits_frozen": account.get("debits_frozen"),
        "credits_frozen": account.get("credits_frozen"),
        "closed": account.get("closed"),
        "parts": linked.get("parts", []),
        "leg_indexes": [leg[0] for leg in linked.get("held", ())],
        "legs_total": linked.get("legs"),
        "legs": [dict(zip(_LEG, leg[1:], strict=True)) for leg in linked.get("back", ())],
        "original_legs": [leg[0] for leg in linked.get("back", ())],
    }
    if "reason" in linked:
        reason = linked["reason"]
        found |= {"reason": reason, "detail": DETAILS.get(reason)}
        found["failed_leg"] = linked["failed_leg"]
    return found | {"reason": hold["reason"]} if "reason" in hold else found


def event_bytes(row: Row) -> bytes:
    """Return the event's value on the wire."""
    return encoder(EVENTS)(event_of(row))
