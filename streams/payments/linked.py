"""Movements that several homes must agree on: all are asked to prepare, then all commit or abort.

The ledger's answer to the saga's first command names the homes. Once all have prepared, the saga
commits, and nothing can stop it any more; when one refuses, or has not answered in time, all others
abort. Each step is one command to each home, sent once and in the order of that home's log, so an
abort always comes after what it undoes. Answers that come too late, or twice, change nothing. What
is only tried holds nothing: it ends with the first refusal or the last answer, however late.
"""

from __future__ import annotations

from typing import Any, Final

from schemas import ids
from schemas.errors import Corrupt
from streams.payments import records, saga
from streams.payments.outlet import Outlet
from streams.payments.saga import REFUSALS, State, Trigger
from streams.payments.state import Linked, Moved, Saga

Answer = dict[str, Any]

PREPARED: Final = "transfer.prepared"
TIMER: Final = "/homes"
"""What the key of the timer ends in that waits for homes to answer."""

DEADLINE_US: Final = 30_000_000
"""How long homes may take to prepare, by log time; money is held meanwhile."""

_PHASES: Final = {
    "prepare": frozenset({State.PREPARING, State.TRANSFER_PREPARING}),
    "commit": frozenset({State.COMMITTING, State.TRANSFER_COMMITTING}),
    "abort": frozenset({State.ABORTING, State.TRANSFER_ABORTING}),
}
_BEGINNING: Final = frozenset({State.POSTING, State.TRANSFERRING})
_STEPS: Final = tuple(f"{phase}-" for phase in _PHASES)
_LATE: Final = ("homes_unavailable", "Not every home that must agree has answered in time.")


def concerns(answer: Answer) -> bool:
    """Tell whether the answer is one home's of several."""
    step: str = answer["step"]
    return answer["type"] == PREPARED or step.startswith(_STEPS)


def advance(outlet: Outlet, of: Saga, answer: Answer) -> Answer | None:
    """Take one home's answer; once all have ended, return the whole as one answer of the ledger."""
    phase, _, number = answer["step"].partition("-")
    if phase not in _PHASES:
        if of.state in _BEGINNING:
            _prepare(outlet, of, answer["parts"])
        return None
    linked = of.linked
    if linked is None or of.state not in _PHASES[phase] or int(number) not in linked.waiting:
        return None
    if phase == "prepare" and of.dry_run:
        return _tried(of, linked, int(number), answer)
    if phase == "prepare":
        _prepared(outlet, of, linked, int(number), answer)
        return None
    if answer["type"] in REFUSALS:
        raise Corrupt(f"{of.resource_id} was agreed to, and refused as {answer['reason']}")
    linked.waiting.remove(int(number))
    _gather(linked, answer)
    if linked.waiting:
        return None
    of.linked = None
    return _whole(of, linked, phase)


def on_deadline(outlet: Outlet, of: Saga) -> bool:
    """Abort what not every home has prepared in time; False where all have."""
    linked = of.linked
    if linked is None or of.state not in _PHASES["prepare"]:
        return False
    linked.reason, linked.detail = _LATE
    _ask(outlet, of, linked, Trigger.HOMES_LATE, range(len(linked.parts)))
    return True


def _prepare(outlet: Outlet, of: Saga, parts: list[str]) -> None:
    """Ask every home beside the saga's own, which has prepared already."""
    of.linked = linked = Linked(parts=parts)
    if not of.dry_run:
        outlet.context.set_timer(outlet.record.at_us + DEADLINE_US, outlet.slot, _timer(of))
    _ask(outlet, of, linked, Trigger.HOMES_NAMED, range(1, len(parts)))


def _prepared(outlet: Outlet, of: Saga, linked: Linked, part: int, answer: Answer) -> None:
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


def _tried(of: Saga, linked: Linked, part: int, answer: Answer) -> Answer | None:
    """Return the answer to the whole once it is known: the first refusal, or that all would."""
    if answer["type"] not in REFUSALS:
        linked.waiting.remove(part)
        if linked.waiting:
            return None
        answer = answer | {"type": "transfer.posted"}
    of.linked = None
    return answer


def _ask(
    outlet: Outlet, of: Saga, linked: Linked, trigger: Trigger, parts: range | list[int]
) -> None:
    """Move the saga, and send what the table says to these homes."""
    transition = saga.step(of.state, trigger)
    of.state, linked.waiting = transition.to, list(parts)
    assert transition.command is not None
    for number in parts:
        at_us = outlet.record.at_us
        outlet.command(records.linked_command(of, linked, transition.command, number, at_us))


def _gather(linked: Linked, answer: Answer) -> None:
    if answer.get("position") is not None:  # only the saga's own home answers without forwarding
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


def _whole(of: Saga, linked: Linked, phase: str) -> Answer:
    assert linked.place is not None
    linked.moved.sort(key=lambda side: side.leg)
    names = Moved.__struct_fields__[1:]
    return {
        "type": "transfer.committed" if phase == "commit" else "transfer.aborted",
        "saga_id": of.resource_id,
        "identity": ids.identity_of(of.resource_id),
        "step": phase,
        "reason": linked.reason,
        "detail": linked.detail,
        "failed_leg": linked.failed_leg,
        "repeated": False,
        "amount_minor": None,
        "remaining_minor": None,
        "entries": [{name: getattr(side, name) for name in names} for side in linked.moved],
        "released": linked.released,
        "booked_at_us": linked.booked_at_us,
        "ledger_partition": linked.place[0],
        "position": linked.place[1],
    }


def _timer(of: Saga) -> bytes:
    return f"{ids.identity_of(of.resource_id)}{TIMER}".encode()
