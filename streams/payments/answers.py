"""The ledger's answers: which saga or operation they concern, and what they move.

An answer to an operation whose saga lives on another partition (a refund is decided at the payee's
home) is forwarded there; it comes back as a request of type `saga.answered`. Positions are applied
once and in order: one that was applied is dropped, a gap is a broken invariant.
"""

from __future__ import annotations

from typing import Any, Final

from prometheus_client import Counter

from schemas import ids
from schemas.errors import Corrupt, Poisoned
from schemas.metrics import Tally
from streams.engine import Context, Record
from streams.payments import linked, records, saga
from streams.payments.operation import UNDER_WAY, OperationState
from streams.payments.outlet import Outlet
from streams.payments.saga import PENDING, REFUSALS, State, Trigger
from streams.payments.state import Operation, Saga
from streams.payments.stores import OPERATIONS, POSITIONS, SAGAS, find

Answer = dict[str, Any]

_OUTCOMES = Counter("headrace_sagas_total", "Sagas that moved, by kind of event", ["type"])
outcomes: Final = Tally(
    {
        transition.event: _OUTCOMES.labels(type=transition.event)
        for transition in saga.TABLE.values()
        if transition.event is not None
    }
)
_EXPIRE: Final = "expire"
_AUTHORIZED: Final = State.AUTHORIZED
EXPIRY_AGAIN_US: Final = 1_000_000
"""How long to wait before an expiry is asked for again that came too early for the ledger."""

_REPLIED: Final = ("entries", "failed_leg", "booked_at_us", "debits_frozen", "credits_frozen")
_ACCOUNT: Final = ("account_kind", "account_name", "min_balance_minor", "max_balance_minor")


def on_ledger_event(context: Context, record: Record) -> None:
    """Apply an event of the ledger, or send it on to the partition of its saga."""
    event = record.event
    if not _advance(context, event):
        return
    slot = ids.parse_slot(event["saga_id"])  # one that does not come again soon
    if ids.partition_of(slot, context.partitions) != context.partition:
        Outlet(context, record, slot).forward(event)
        return
    event["step"] = event["command_id"].split("/")[1]
    _apply(context, record, slot, event)


def on_forwarded(context: Context, record: Record) -> None:
    """Apply an answer that another partition has forwarded."""
    request = record.event
    answer = {
        "type": request["answer"],
        "saga_id": request["resource_id"],
        "identity": request["identity"],
        "step": request["answer_step"],
        "reason": request["answer_reason"],
        "detail": request["answer_detail"],
        "failed_leg": request["answer_failed_leg"],
        "booked_at_us": request["answer_booked_at_us"],
        "repeated": False,
        "amount_minor": request["amount_minor"],
        "remaining_minor": request["answer_remaining_minor"],
        "entries": request["answer_entries"],
        "leg_indexes": request["answer_leg_indexes"],
        "parts": request["answer_parts"],
        "legs": request["answer_legs"],
        "original_legs": request["answer_original_legs"],
    }
    _apply(context, record, ids.slot_of(request["resource_id"]), answer)


def _apply(context: Context, record: Record, slot: int, answer: Answer) -> None:
    at_us, saga_id = record.at_us, answer["saga_id"]
    identity = ids.identity_of(saga_id)
    operation, operation_key = None, b""
    # Else it answers the saga's own command; a reversal's operation is named like what it makes.
    step: str = answer["step"]
    if len(step) > ids.IDENTITY_LENGTH and step.endswith(f"-{answer['identity']}"):
        operation, operation_key = find(context, OPERATIONS, slot, answer["identity"], at_us)
    found, key = find(context, SAGAS, slot, identity, at_us)
    if found is None and operation is None:
        raise Poisoned(f"{saga_id} has no saga here")
    outlet = Outlet(context, record, slot)
    if operation is not None:
        if operation.state not in UNDER_WAY:
            return
        whole = linked.advance(outlet, operation, answer) if linked.concerns(answer) else answer
        if whole is not None:
            _end_operation(outlet, operation, found, whole)
        context.put(OPERATIONS, slot, operation_key, operation)
    else:
        assert found is not None
        if linked.concerns(answer):
            whole = linked.advance(outlet, found, answer)
            if whole is not None:
                _move_by_itself(outlet, found, whole)
        elif not _move_by_itself(outlet, found, answer):
            return
    if found is not None:
        context.put(SAGAS, slot, key, found)


def _end_operation(outlet: Outlet, operation: Operation, of: Saga | None, answer: Answer) -> None:
    _settle_operation(operation, answer)
    if of is not None:
        _move_by_operation(outlet, of, operation, answer)
    for waiter in operation.waiters:
        outlet.operation_reply(operation, of, waiter, **_told(answer))
    operation.waiters = []
    operation.target_id = operation.legs = operation.reference = None
    operation.original_legs, operation.metadata = [], {}


def _settle_operation(operation: Operation, answer: Answer) -> None:
    refused = answer["type"] in REFUSALS
    operation.state = OperationState.REFUSED if refused else OperationState.APPLIED
    operation.reason, operation.detail = answer["reason"], answer["detail"]
    if not refused:
        operation.reason = operation.detail = None


def _move_by_operation(outlet: Outlet, of: Saga, operation: Operation, answer: Answer) -> None:
    extra: dict[str, Any] = {"operation_id": operation.identity}
    if operation.state is OperationState.REFUSED:
        extra |= {"reason": operation.reason, "detail": operation.detail}
        outlet.event(of, f"{operation.kind}_refused", extra)
        return
    trigger = saga.trigger_of(
        answer["type"],
        remaining_minor=_remaining(of, answer),
        captured_minor=of.captured_minor or 0,
        refunded_minor=of.refunded_minor or 0,
        expired=False,
    )
    if trigger is None:
        outlet.event(of, answer["type"], extra | {"status": _account_status(answer)})
        return
    _transit(outlet, of, trigger, answer, extra)


def _move_by_itself(outlet: Outlet, of: Saga, answer: Answer) -> bool:
    """Apply the answer to the saga's own command; False where it changes nothing."""
    expiring = answer["step"] == _EXPIRE
    if expiring and of.state is not State.AUTHORIZED:
        return False
    if expiring and answer["type"] in REFUSALS:
        return _expire_again(outlet, of, answer)
    if not expiring and answer["repeated"] and of.state not in PENDING:
        return False
    trigger = saga.trigger_of(
        answer["type"],
        remaining_minor=answer["remaining_minor"],
        captured_minor=of.captured_minor or 0,
        refunded_minor=of.refunded_minor or 0,
        expired=expiring,
    )
    assert trigger is not None
    if not expiring:
        of.reason, of.detail = answer["reason"], answer["detail"]
    extra: dict[str, Any] = {}
    if answer["type"].startswith("account."):
        extra = {key: answer[key] for key in _ACCOUNT if answer.get(key) is not None}
    _transit(outlet, of, trigger, answer, extra)
    of.legs, of.reference, of.metadata = None, None, {}
    for waiter in of.waiters:
        outlet.reply(of, waiter, _told(answer))
    of.waiters = []
    return True


def _expire_again(outlet: Outlet, of: Saga, answer: Answer) -> bool:
    """Set the timer anew where the ledger's log has not reached the hold's time yet."""
    if answer["reason"] != "hold_not_expired" or of.expires_at_us is None:
        return False
    of.expiry_attempt += 1
    due_us = max(of.expires_at_us, outlet.record.at_us + EXPIRY_AGAIN_US)
    outlet.context.set_timer(due_us, outlet.slot, _timer(of))
    return True


def _transit(
    outlet: Outlet, of: Saga, trigger: Trigger, answer: Answer, extra: dict[str, Any]
) -> None:
    """Move the saga, its amounts and its timer, and emit what the table says."""
    transition = saga.step(of.state, trigger)
    before, after = of.state, transition.to
    of.state = after
    _count(of, answer)
    if answer["entries"]:
        of.shares = records.shares_of(answer["entries"])
    if before is not after and (before is _AUTHORIZED or after is _AUTHORIZED):
        if before is _AUTHORIZED:
            outlet.context.cancel_timer(outlet.slot, _timer(of))
        elif of.expires_at_us is not None:
            outlet.context.set_timer(of.expires_at_us, outlet.slot, _timer(of))
    if transition.event is not None and not of.dry_run:
        extra["ledger_partition"] = answer.get("ledger_partition")
        extra["ledger_position"] = answer.get("position")
        outlet.event(of, transition.event, extra)
        outcomes.count(transition.event)


def _timer(of: Saga) -> bytes:
    return ids.identity_of(of.resource_id).encode()


def _remaining(of: Saga, answer: Answer) -> int | None:
    """Return what is left of the hold, or left to pay back.

    The payee's partition knows only what was captured when it decided on a refund; a capture that
    came here since makes more of it left.
    """
    if answer["type"] == "transfer.reversed" and of.captured_minor is not None:
        refunded_minor: int = (of.refunded_minor or 0) + (answer["amount_minor"] or 0)
        return of.captured_minor - refunded_minor
    remaining: int | None = answer["remaining_minor"]
    return remaining


def _count(of: Saga, answer: Answer) -> None:
    amount_minor = answer["amount_minor"] or 0
    match answer["type"]:
        case "hold.placed":
            of.authorized_minor = of.amount_minor
        case "transfer.posted" | "transfer.committed" if of.amount_minor is not None:
            of.captured_minor = of.amount_minor
        case "hold.posted":
            of.captured_minor = (of.captured_minor or 0) + amount_minor
        case "transfer.reversed":
            of.refunded_minor = (of.refunded_minor or 0) + amount_minor


def _told(answer: Answer) -> dict[str, Any]:
    """Return what a reply tells of the ledger's answer, beside how the saga stands."""
    told = {key: answer[key] for key in _REPLIED if answer.get(key) is not None}
    if shares := records.shares_of(answer["entries"]) or answer.get("released"):
        told["shares"] = records.told_shares(shares)
    return told


def _account_status(answer: Answer) -> str:
    if answer.get("closed"):
        return "closed"
    frozen = answer.get("debits_frozen") or answer.get("credits_frozen")
    return "frozen" if frozen else "active"


def _advance(context: Context, event: Answer) -> bool:
    """Move on to the ledger's position; False where it was applied before."""
    key, position = b"ledger", event["position"]
    slot = context.partition
    last = context.get(POSITIONS, slot, key)
    if last is not None:
        if position <= last:
            return False
        if position != last + 1:
            raise Corrupt(f"the ledger's events jump from position {last} to {position}")
    context.put(POSITIONS, slot, key, position)
    return True
