"""Requests: what begins a payment, a transfer or an account, and what is done to one later.

Each carries an idempotency key of its own, and is new, a repeat or a conflict (see `dedup`). A
conflict is shown on the timeline of what the key was first used for, and executes nothing.
"""

from __future__ import annotations

from typing import Any, Final

from prometheus_client import Counter

from schemas import ids
from schemas.errors import Poisoned
from schemas.metrics import Tally
from streams.engine import Context, Record
from streams.payments import dedup, linked, records, saga, velocity
from streams.payments.dedup import Use
from streams.payments.operation import OPERATIONS as OPERATION_KINDS
from streams.payments.operation import UNDER_WAY, OperationState
from streams.payments.outlet import Outlet
from streams.payments.saga import PENDING, Trigger
from streams.payments.state import (
    CONFLICTS_MAX,
    WAITERS_MAX,
    Operation,
    Saga,
    Waiter,
)
from streams.payments.stores import OPERATIONS, PROFILES, SAGAS, find
from streams.payments.velocity import RuleSet

_USES = Counter("headrace_requests_total", "Requests by what their key made of them", ["use"])
_HITS = Counter("headrace_velocity_hits_total", "Payments that broke a rule", ["rule", "mode"])
uses: Final = Tally({use: _USES.labels(use=use.value) for use in Use})
_REASON = "idempotency_key_reused"


def on_creation(context: Context, record: Record, slot: int, rules: RuleSet) -> None:
    """Begin a saga, or answer for the one that its key began."""
    request, outlet = record.event, Outlet(context, record, slot)
    found, key = find(context, SAGAS, slot, request["identity"], record.at_us)
    use = dedup.judge(found.body_hash if found else None, request["body_hash"])
    uses.count(use)
    waiter = _waiter(request, repeated=found is not None)
    if found is None:
        found = _begin(outlet, rules, waiter)
    elif use is Use.CONFLICT:
        _conflict(outlet, found, request, waiter)
    elif waiter is None:
        return
    elif found.state not in PENDING:
        outlet.reply(found, waiter, {})
    elif len(found.waiters) < WAITERS_MAX:
        found.waiters.append(waiter)
    context.put(SAGAS, slot, key, found)


def on_operation(context: Context, record: Record, slot: int) -> None:
    """Begin an operation, or answer for the one that its key began."""
    request, outlet = record.event, Outlet(context, record, slot)
    operation, key = find(context, OPERATIONS, slot, request["identity"], record.at_us)
    use = dedup.judge(operation.body_hash if operation else None, request["body_hash"])
    uses.count(use)
    waiter = _waiter(request, repeated=operation is not None)
    target = _target(context, record, slot)
    if operation is None:
        operation = _operate(outlet, request, target)
    elif use is Use.CONFLICT:
        if waiter is not None:
            outlet.operation_reply(operation, target, waiter, conflict=True)
        return
    if waiter is not None:
        if operation.state not in UNDER_WAY:
            outlet.operation_reply(operation, target, waiter)
        elif len(operation.waiters) < WAITERS_MAX:
            operation.waiters.append(waiter)
    context.put(OPERATIONS, slot, key, operation)


def on_expiry(context: Context, record: Record, slot: int, identity: str) -> None:
    """End what has run out of time: an authorization, or the wait for homes that must agree."""
    identity, _, late = identity.partition("/")
    outlet = Outlet(context, record, slot)
    if late == linked.OF_OPERATION:
        operation, key = find(context, OPERATIONS, slot, identity, record.at_us)
        if operation is not None and linked.on_deadline(outlet, operation):
            context.put(OPERATIONS, slot, key, operation)
        return
    found, key = find(context, SAGAS, slot, identity, record.at_us)
    if found is None:
        return
    if late:
        if linked.on_deadline(outlet, found):
            context.put(SAGAS, slot, key, found)
    elif found.state is saga.State.AUTHORIZED:
        outlet.command(records.expiry_command(found, record.at_us))


def _begin(outlet: Outlet, rules: RuleSet, waiter: Waiter | None) -> Saga:
    record, request = outlet.record, outlet.record.event
    trigger, reason = _admit(outlet.context, record, outlet.slot, rules)
    transition = saga.step(None, trigger)
    new = records.saga(request, transition.to, record.at_us)
    if waiter is not None:
        new.waiters.append(waiter)
    if transition.event is not None:
        told = {
            "description": request["description"],
            "reference": request["reference"],
            "metadata": request["metadata"],
        }
        outlet.event(new, transition.event, told)
    assert transition.command is not None
    outlet.opening(new, transition.command, request, reason)
    return new


def _admit(
    context: Context, record: Record, slot: int, rules: RuleSet
) -> tuple[Trigger, str | None]:
    """Ask the velocity rules about a debit of the home account, and count it if it passes."""
    request = record.event
    if request["type"] == "account.open":
        return Trigger.ACCOUNT_REQUESTED, None
    if request["type"] == "transfer.create":
        return Trigger.TRANSFER_REQUESTED, None
    allowed = Trigger.PAYMENT_TO_HOLD if request["capture"] == "manual" else Trigger.PAYMENT_ALLOWED
    source = request["source_account"]
    if not ids.is_guarded(source):
        return allowed, None
    key = source.encode()
    profile = context.get(PROFILES, slot, key) or velocity.empty()
    amount_minor = request["amount_minor"]
    verdict = velocity.check(profile, rules, record.at_us, amount_minor, request["currency"])
    if verdict is not velocity.PASSED:
        for rule in verdict.enforced + verdict.shadowed:
            _HITS.labels(rule=rule.id, mode=rule.mode).inc()
        if verdict.enforced:
            return Trigger.PAYMENT_REFUSED, verdict.enforced[0].reason
    velocity.add(profile, record.at_us, amount_minor)
    context.put(PROFILES, slot, key, profile)
    return allowed, None


def _conflict(outlet: Outlet, found: Saga, request: dict[str, Any], waiter: Waiter | None) -> None:
    if found.conflicts < CONFLICTS_MAX:
        found.conflicts += 1
        kind = request["type"].partition(".")[0]
        extra = {"request_id": request["request_id"], "reason": _REASON}
        outlet.event(found, f"{kind}.conflicted", extra)
    if waiter is not None:
        outlet.reply(found, waiter, {"conflict": True})


def _operate(outlet: Outlet, request: dict[str, Any], target: Saga | None) -> Operation:
    """Send the operation's command, or refuse what has no payment to act upon."""
    new = Operation(
        identity=request["identity"],
        kind=request["type"],
        resource_id=request["resource_id"],
        body_hash=request["body_hash"],
        tenant=request["tenant"],
        home_account=request["home_account"],
        state=OperationState.PENDING,
    )
    if OPERATION_KINDS[new.kind] == "transfer.reverse":
        new.target_id = request["target_id"]
        new.reference, new.metadata = request["reference"], request["metadata"]
    if not new.kind.startswith("payment."):
        home = request["home_account"]
    elif target is None:
        new.state, new.reason = OperationState.REFUSED, "payment_not_found"
        return new
    else:
        home = _home(new.kind, target)
    outlet.command(records.operation_command(new, request, home, outlet.record.at_us))
    return new


def _home(kind: str, target: Saga) -> str:
    """Return the home of the movement: that of the payment, or, of money paid back, the payee's."""
    source, destination = target.source_account, target.destination_account
    if source is None or destination is None:
        raise Poisoned(f"{target.resource_id} is no payment")
    if kind == "payment.refund":
        return ids.home_account(destination, source)
    return target.home_account


def _target(context: Context, record: Record, slot: int) -> Saga | None:
    target_id = record.event["target_id"]
    if target_id is None:
        raise Poisoned(f"a {record.event['type']} must name its target")
    return find(context, SAGAS, slot, ids.identity_of(target_id), record.at_us)[0]


def _waiter(request: dict[str, Any], *, repeated: bool) -> Waiter | None:
    if request["reply_partition"] is None:
        return None
    return Waiter(request["reply_partition"], request["request_id"], repeated)
