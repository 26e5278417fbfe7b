"""Records out of sagas and operations: ledger commands, replies. Pure.

Everything derives from the saga, the record that moved it and log time, so a replay builds the same
bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from schemas.ids import command_id, identity_of, slot_of
from streams.payments.operation import OPERATIONS, OperationState
from streams.payments.saga import STATUS, State
from streams.payments.state import TIMELINE_MAX, Legs, Operation, Saga, Share, Waiter

Fields = dict[str, Any]

LEG: Final = ("source", "destination", "amount_minor", "currency")
_ACCOUNT: Final = ("account_kind", "account_name", "min_balance_minor", "max_balance_minor")


def saga(request: Fields, state: State, at_us: int) -> Saga:
    """Build the saga that a request begins."""
    expires_in_s, legs = request["expires_in_s"], request["legs"]
    new = Saga(  # by position: for every payment, names would cost thrice as much
        request["resource_id"],
        request["tenant"],
        request["idempotency_key"],
        request["body_hash"],
        request["home_account"],
        request["request_id"],
        request["received_at_us"],
        at_us,
        state,
        0,
        request["amount_minor"],
        request["currency"],
        request["source_account"],
        request["destination_account"],
        request["method"],
        request["capture"],
        effective_at_us=request["effective_at_us"],
        dry_run=request["dry_run"],
    )
    if expires_in_s is not None:
        new.expires_at_us = at_us + expires_in_s * 1_000_000
    if legs:
        new.legs = legs_of(legs)
        new.reference, new.metadata = request["reference"], request["metadata"]
    return new


OPENING: Final = (
    "type",
    "command_id",
    "saga_id",
    "step",
    "attempt",
    "tenant",
    "identity",
    "body_hash",
    "slot",
    "home_account",
    "requested_at_us",
    "legs",
    "effective_at_us",
    "reason",
    "reference",
    "metadata",
    "dry_run",
)
"""The fields whose values the row of `opening_command` has, in its order."""


def opening_command(
    of: Saga, kind: str, request: Fields, reason: str | None
) -> tuple[tuple[Any, ...], Fields]:
    """Build the command that begins a saga: post, reject, hold or open; a row of the fields
    `OPENING`, and what only some kinds carry.
    """
    resource_id, step, legs = of.resource_id, kind.partition(".")[2], request["legs"]
    if kind == "account.open":
        others = {name: request[name] for name in _ACCOUNT}
        others |= {"account_id": resource_id, "currency": of.currency}
    else:
        others = {"transfer_id": resource_id}
        legs = legs or [leg_of(of)]
    if kind == "hold.place":
        others |= {"hold_id": resource_id, "expires_at_us": of.expires_at_us}
    row = (
        kind,
        command_id(resource_id, step, 1),
        resource_id,
        step,
        1,
        of.tenant,
        identity_of(resource_id),
        of.body_hash,
        slot_of(of.home_account),
        of.home_account,
        of.accepted_at_us,
        legs,
        of.effective_at_us,
        reason,
        request["reference"],
        request["metadata"],
        of.dry_run,
    )
    return row, others


def operation_command(of: Operation, request: Fields, home_account: str, at_us: int) -> Fields:
    """Build the command of an operation; its identity is the operation's own key."""
    kind = OPERATIONS[of.kind]
    step = of.kind.partition(".")[2]
    target = request["target_id"]
    return {
        "type": kind,
        "command_id": command_id(of.resource_id, f"{step}-{of.identity}", 1),
        "saga_id": of.resource_id,
        "step": f"{step}-{of.identity}",
        "attempt": 1,
        "tenant": of.tenant,
        "identity": of.identity,
        "body_hash": of.body_hash,
        "slot": slot_of(home_account),
        "home_account": home_account,
        "requested_at_us": at_us,
        "transfer_id": of.resource_id,
        "hold_id": target if kind.startswith("hold.") else None,
        "original_id": target if kind == "transfer.reverse" else None,
        "original_leg": request["original_leg"],
        "amount_minor": request["amount_minor"],
        "account_id": target if kind.startswith("account.") else None,
        "debits": request["debits"],
        "credits": request["credits"],
        "reason": "voided" if kind == "hold.void" else None,
        "reference": request["reference"],
        "metadata": request["metadata"],
    }


def expiry_command(of: Saga, at_us: int) -> Fields:
    """Build the command that gives back what is left of a hold whose time is over."""
    return {
        "type": "hold.void",
        "command_id": command_id(of.resource_id, "expire", of.expiry_attempt),
        "saga_id": of.resource_id,
        "step": "expire",
        "attempt": of.expiry_attempt,
        **_identity(of),
        "requested_at_us": at_us,
        "transfer_id": of.resource_id,
        "hold_id": of.resource_id,
        "reason": "expired",
    }


def reply(of: Saga, to: Waiter, at_us: int, *, conflict: bool = False) -> Fields:
    """Build the answer to one request that waits for a saga."""
    answer = _reply(of.resource_id, to, at_us)
    answer |= {
        "identity": identity_of(of.resource_id),
        "status": STATUS[of.state],
        "version": of.version,
        "reason": of.reason,
        "detail": of.detail,
        **_progress(of),
    }
    return answer | _CONFLICT if conflict else answer


def operation_reply(
    of: Operation, target: Saga | None, to: Waiter, at_us: int, *, conflict: bool = False
) -> Fields:
    """Build the answer to one request that waits for an operation: how its target stands now."""
    answer = _reply(of.resource_id, to, at_us)
    answer |= {
        "operation_id": of.identity,
        "identity": of.identity,
        "status": STATUS[target.state] if target else of.state.value,
        "version": target.version if target else 0,
        "reason": of.reason,
        "detail": of.detail,
        **(_progress(target) if target else {}),
    }
    if of.state is OperationState.REFUSED and of.reason is None:
        answer["reason"] = "refused"
    return answer | _CONFLICT if conflict else answer


_CONFLICT: Fields = {
    "conflict": True,
    "reason": "idempotency_key_reused",
    "detail": "the key was used before with another body",
}


def _reply(resource_id: str, to: Waiter, at_us: int) -> Fields:
    return {
        "request_id": to.request_id,
        "resource_id": resource_id,
        "conflict": False,
        "repeated": to.repeated,
        "occurred_at_us": at_us,
    }


def legs_of(legs: Iterable[Fields]) -> Legs:
    """Return legs as they are kept."""
    return [tuple(leg[name] for name in LEG) for leg in legs]


def shares_of(entries: Iterable[Fields]) -> list[Share]:
    """Return the shares that entries changed, as they are kept."""
    return [(each["account_id"], each["share"], each["version"]) for each in entries]


def told_shares(shares: Iterable[Share]) -> list[Fields]:
    """Return shares as a reply tells of them."""
    return [
        {"account_id": account, "share": share, "version": version}
        for account, share, version in shares
    ]


def _progress(of: Saga) -> Fields:
    return {
        "timeline": [
            {"at_us": at, "event": name, "reason": reason}
            for at, name, reason in of.timeline[-TIMELINE_MAX:]
        ],
        "shares": told_shares(of.shares),
        "captured_minor": of.captured_minor,
        "refunded_minor": of.refunded_minor,
        "expires_at_us": of.expires_at_us,
        "effective_at_us": of.effective_at_us,
    }


def leg_of(of: Saga) -> Fields:
    """Return a payment's one leg."""
    return {
        "source": of.source_account,
        "destination": of.destination_account,
        "amount_minor": of.amount_minor,
        "currency": of.currency,
    }


def _identity(of: Saga) -> Fields:
    return {
        "tenant": of.tenant,
        "identity": identity_of(of.resource_id),
        "body_hash": of.body_hash,
        "slot": slot_of(of.home_account),
        "home_account": of.home_account,
    }
