"""What each of several homes is asked: to prepare, to commit or to abort. Pure."""

from __future__ import annotations

from schemas.ids import command_id, identity_of, slot_of
from streams.payments import records
from streams.payments.records import Fields
from streams.payments.state import Linked, Operation, Saga


def command(of: Saga | Operation, linked: Linked, kind: str, number: int, at_us: int) -> Fields:
    """Build what a saga, or an operation that pays back, asks of one of several homes."""
    part, step = linked.parts[number], f"{kind.partition('.')[2]}-{number}"
    legs = [dict(zip(records.LEG, leg, strict=True)) for leg in of.legs or ()]
    if isinstance(of, Saga):
        identity, legs = identity_of(of.resource_id), legs or [records.leg_of(of)]
        own: Fields = {"effective_at_us": of.effective_at_us, "dry_run": of.dry_run}
    else:
        identity, step = of.identity, f"{step}-{of.identity}"
        own = {"original_id": of.target_id, "original_legs": of.original_legs}
    return {
        "type": kind,
        "command_id": command_id(of.resource_id, step, 1),
        "saga_id": of.resource_id,
        "step": step,
        "attempt": 1,
        "tenant": of.tenant,
        "identity": identity,
        "body_hash": of.body_hash,
        "slot": slot_of(part),
        "home_account": part,
        "requested_at_us": at_us,
        "transfer_id": of.resource_id,
        "legs": legs,
        "reference": of.reference,
        "metadata": of.metadata,
        "reason": linked.reason,
        "failed_leg": linked.failed_leg,
        **own,
    }
