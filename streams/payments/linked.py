"""Movements that several homes must agree on: all are asked to prepare, then all commit or abort.

They are a saga's own, or those of an operation that pays back. The ledger's answer to the first
command names the homes, and of a reversal the legs. Once all have prepared, the saga
commits, and nothing can stop it any more; when one refuses, or has not answered in time, all others
abort. Each step is one command to each home, sent once and in the order of that home's log, so an
abort always comes after what it undoes. Answers that come too late, or twice, change nothing. What
is only tried holds nothing: it ends with the first refusal or the last answer, however late.
"""

from __future__ import annotations

from typing import Any, Final

from schemas import ids
from schemas.errors import Corrupt
from streams.payments import linked_records, operation, records, saga
from streams.payments.operation import OperationState
from streams.payments.outlet import Outlet
from streams.payments.saga import REFUSALS, State, Trigger
from streams.payments.state import Linked, Moved, Operation, Saga

Answer = dict[str, Any]
Agreeing = Saga | Operation

PREPARED: Final = "transfer.prepared"
OF_SAGA: Final = "homes"
OF_OPERATION: Final = "operation"
"""What the key of the timer ends in, after a slash, that waits for homes to answer."""

DEADLINE_US: Final = 30_000_000
"""How long homes may take to prepare, by log time; money is held meanwhile."""

_PHASES: Final = {
    "prepare": {State.PREPARING, State.TRANSFER_PREPARING, OperationState.PREPARING},
    "commit": {State.COMMITTING, State.TRANSFER_COMMITTING, OperationState.COMMITTING},
    "abort": {State.ABORTING, State.TRANSFER_ABORTING, OperationState.ABORTING},
}
_BEGINNING: Final = {State.POSTING, State.TRANSFERRING, OperationState.PENDING}
_STEPS: Final = tuple(f"{phase}-" for phase in _PHASES)
_ENDS: Final = {
    (Saga, "commit"): "transfer.committed",
    (Saga, "abort"): "transfer.aborted",
    (Operation, "commit"): "transfer.reversed",
    (Operation, "abort"): "transfer.rejected",
}
"""What the whole is told as."""
_LATE: Final = ("homes_unavailable", "Not every home that must agree has answered in time.")


def concerns(answer: Answer) -> bool:
    """Tell whether the answer is one home's of several."""
    step: str = answer["step"]
    return answer["type"] == PREPARED or step.startswith(_STEPS)


def advance(outlet: Outlet, of: Agreeing, answer: Answer) -> Answer | None:
    """Take one home's answer; once all have ended, return the whole as one answer of the ledger."""
    phase, _, rest = answer["step"].partition("-")
    if phase not in _PHASES:
        if of.state in _BEGINNING:
            _prepare(outlet, of, answer)
        return None
    linked, number = of.linked, int(rest.partition("-")[0])
    if linked is None or of.state not in _PHASES[phase] or number not in linked.waiting:
        return None
    if phase == "prepare" and _is_dry(of):
        return _tried(of, linked, number, answer)
    if phase == "prepare":
        _prepared(outlet, of, linked, number, answer)
        return None
    if answer["type"] in REFUSALS:
        raise Corrupt(f"{of.resource_id} was agreed to, and refused as {answer['reason']}")
    linked.waiting.remove(number)
    _gather(of, linked, answer)
    if linked.waiting:
        return None
    of.linked = None
    return _whole(of, linked, phase)


def on_deadline(outlet: Outlet, of: Agreeing) -> bool:
    """Abort what not every home has prepared in time; False where all have."""
    linked = of.linked
    if linked is None or of.state not in _PHASES["prepare"]:
        return False
    linked.reason, linked.detail = _LATE
    _ask(outlet, of, linked, Trigger.HOMES_LATE, range(len(linked.parts)))
    return True


def _prepare(outlet: Outlet, of: Agreeing, answer: Answer) -> None:
    """Ask every home but the first, which has prepared already."""
    of.linked = linked = Linked(parts=answer["parts"])
    if isinstance(of, Operation):
        linked.amount_minor = answer["amount_minor"]
        linked.remaining_minor = answer["remaining_minor"]
        of.legs, of.original_legs = records.legs_of(answer["legs"]), answer["original_legs"]
    if not _is_dry(of):
        outlet.context.set_timer(outlet.record.at_us + DEADLINE_US, outlet.slot, _timer(of))
    _ask(outlet, of, linked, Trigger.HOMES_NAMED, range(1, len(linked.parts)))


def _prepared(outlet: Outlet, of: Agreeing, linked: Linked, part: int, answer: Answer) -> None:
    if answer["type"] in REFUSALS:
        linked.reason, linked.detail = answer["reason"], answer["detail"]
        linked.failed_leg = answer["failed_leg"]
        others = [n for n in range(len(linked.parts)) if n != part]
        outlet.context.cancel_timer(outlet.slot, _timer(of))
        _ask(outlet, of, linked, Trigger.HOME_REFUSED, others)
        return
    linked.waiting.remove(part)
    if not linked.waiting:
        outlet.context.cancel_timer(outlet.slot, _timer(of))
        _ask(outlet, of, linked, Trigger.HOMES_AGREED, range(len(linked.parts)))


def _tried(of: Agreeing, linked: Linked, part: int, answer: Answer) -> Answer | None:
    """Return the answer to the whole once it is known: the first refusal, or that all would."""
    if answer["type"] not in REFUSALS:
        linked.waiting.remove(part)
        if linked.waiting:
            return None
        answer = answer | {"type": "transfer.posted"}
    of.linked = None
    return answer


def _ask(
    outlet: Outlet, of: Agreeing, linked: Linked, trigger: Trigger, parts: range | list[int]
) -> None:
    """Move the saga or the operation, and send what its table says to these homes."""
    kind: str | None
    if isinstance(of, Operation):
        of.state, kind = operation.step(of.state, trigger)
    else:
        transition = saga.step(of.state, trigger)
        of.state, kind = transition.to, transition.command
    assert kind is not None
    linked.waiting = list(parts)
    for number in parts:
        outlet.command(linked_records.command(of, linked, kind, number, outlet.record.at_us))


def _gather(of: Agreeing, linked: Linked, answer: Answer) -> None:
    if isinstance(of, Saga) and answer.get("position") is not None:  # not forwarded: its own home
        linked.place = answer["ledger_partition"], answer["position"]
    linked.booked_at_us = max(linked.booked_at_us, answer["booked_at_us"] or 0)
    if answer["type"] != "transfer.committed":
        linked.released += records.shares_of(answer["entries"])
        return
    for at, entry in enumerate(answer["entries"]):
        leg = answer["leg_indexes"][at // 2]
        linked.moved.append(
            Moved(leg, **{name: entry[name] for name in Moved.__struct_fields__[1:]})
        )


def _whole(of: Agreeing, linked: Linked, phase: str) -> Answer:
    linked.moved.sort(key=lambda side: side.leg)
    names = Moved.__struct_fields__[1:]
    partition, position = linked.place or (None, None)
    return {
        "type": _ENDS[type(of), phase],
        "saga_id": of.resource_id,
        "identity": ids.identity_of(of.resource_id),
        "step": phase,
        "reason": linked.reason,
        "detail": linked.detail,
        "failed_leg": linked.failed_leg,
        "repeated": False,
        "amount_minor": linked.amount_minor,
        "remaining_minor": linked.remaining_minor,
        "entries": [{name: getattr(side, name) for name in names} for side in linked.moved],
        "released": linked.released,
        "booked_at_us": linked.booked_at_us,
        "ledger_partition": partition,
        "position": position,
    }


def _is_dry(of: Agreeing) -> bool:
    return isinstance(of, Saga) and of.dry_run


def _timer(of: Agreeing) -> bytes:
    if isinstance(of, Saga):
        return f"{ids.identity_of(of.resource_id)}/{OF_SAGA}".encode()
    return f"{of.identity}/{OF_OPERATION}".encode()
