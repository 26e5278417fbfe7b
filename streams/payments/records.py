"""Records out of sagas: ledger commands, payment events, replies. Pure.

Everything derives from the saga, the record that moved it and log time, so a replay builds the
same bytes.
"""

from __future__ import annotations

from typing import Any

from schemas.ids import command_id, identity_of, slot_of
from streams.payments.saga import STATUS
from streams.payments.state import Saga, Waiter

Fields = dict[str, Any]


def saga(request: Fields, at_us: int) -> Fields:
    """Return the fields of a new saga that come from its request."""
    return {
        "resource_id": request["resource_id"],
        "tenant": request["tenant"],
        "idempotency_key": request["idempotency_key"],
        "body_hash": request["body_hash"],
        "home_account": request["home_account"],
        "request_id": request["request_id"],
        "received_at_us": request["received_at_us"],
        "accepted_at_us": at_us,
        "amount_minor": request["amount_minor"],
        "currency": request["currency"],
        "source_account": request["source_account"],
        "destination_account": request["destination_account"],
        "method": request["method"],
        "capture": request["capture"],
    }


def command(of: Saga, kind: str, request: Fields, reason: str | None) -> Fields:
    """Build the one command of a saga: `transfer.post`, `transfer.reject` or `account.open`."""
    step = kind.partition(".")[2]
    opening = kind == "account.open"
    legs = []
    if not opening:
        legs.append(
            {
                "source": of.source_account,
                "destination": of.destination_account,
                "amount_minor": of.amount_minor,
                "currency": of.currency,
            }
        )
    return {
        "type": kind,
        "command_id": command_id(of.resource_id, step, 1),
        "saga_id": of.resource_id,
        "step": step,
        "attempt": 1,
        **_identity(of),
        "requested_at_us": of.accepted_at_us,
        "transfer_id": None if opening else of.resource_id,
        "legs": legs,
        "effective_at_us": None,
        "reason": reason,
        "reference": request["reference"],
        "metadata": request["metadata"],
        "account_id": of.resource_id if opening else None,
        "currency": of.currency if opening else None,
        "account_kind": request["account_kind"],
        "account_name": request["account_name"],
        "min_balance_minor": request["min_balance_minor"],
        "max_balance_minor": request["max_balance_minor"],
    }


def event(of: Saga, kind: str, event_id: str, at_us: int, extra: Fields) -> Fields:
    """Build a payment event; `extra` holds what only some kinds carry."""
    return {
        "type": kind,
        "event_id": event_id,
        "resource_id": of.resource_id,
        "idempotency_key": of.idempotency_key,
        **_identity(of),
        "request_id": of.request_id,
        "status": STATUS[of.state],
        "version": of.version,
        "occurred_at_us": at_us,
        "received_at_us": of.received_at_us,
        "reason": of.reason,
        "detail": of.detail,
        "method": of.method,
        "amount_minor": of.amount_minor,
        "currency": of.currency,
        "source_account": of.source_account,
        "destination_account": of.destination_account,
        "capture": of.capture,
        **extra,
    }


def reply(of: Saga, to: Waiter, at_us: int, *, conflict: bool = False) -> Fields:
    """Build the answer to one request that waits."""
    return {
        "request_id": to.request_id,
        "resource_id": of.resource_id,
        "identity": identity_of(of.resource_id),
        "status": STATUS[of.state],
        "version": of.version,
        "reason": "idempotency_key_reused" if conflict else of.reason,
        "detail": "the key was used before with another body" if conflict else of.detail,
        "conflict": conflict,
        "repeated": to.repeated,
        "occurred_at_us": at_us,
        "timeline": [
            {"at_us": at, "event": name, "reason": reason} for at, name, reason in of.timeline
        ],
        "shares": [
            {"account_id": account, "share": share, "version": version}
            for account, share, version in of.shares
        ],
    }


def _identity(of: Saga) -> Fields:
    return {
        "tenant": of.tenant,
        "identity": identity_of(of.resource_id),
        "body_hash": of.body_hash,
        "slot": slot_of(of.home_account),
        "home_account": of.home_account,
    }
