"""What each of several homes is asked: to prepare, to commit or to abort. Pure."""

from __future__ import annotations

from schemas.ids import command_id, slot_of
from streams.payments import records
from streams.payments.records import Fields
from streams.payments.state import Linked, Operation, Saga


def command(of: Saga, linked: Linked, kind: str, number: int, at_us: int) -> Fields:
    """Build what the saga asks of one of several homes: to prepare, to commit or to abort."""
    part = linked.parts[number]
    step = f"{kind.partition('.')[2]}-{number}"
    return {
        "type": kind,
        "command_id": command_id(of.resource_id, step, 1),
        "saga_id": of.resource_id,
        "step": step,
        "attempt": 1,
        **records.identity_of_saga(of),
        "slot": slot_of(part),
        "home_account": part,
        "requested_at_us": at_us,
        "transfer_id": of.resource_id,
        "legs": [dict(zip(records.LEG, leg, strict=True)) for leg in of.legs or ()]
        or [records.leg_of(of)],
        "effective_at_us": of.effective_at_us,
        "reference": of.reference,
        "metadata": of.metadata,
        "reason": linked.reason,
        "failed_leg": linked.failed_leg,
        "dry_run": of.dry_run,
    }


def part_of_reversal(of: Operation, linked: Linked, kind: str, number: int, at_us: int) -> Fields:
    """Build what an operation asks of one of several homes that must agree to pay back."""
    part = linked.parts[number]
    step = f"{kind.partition('.')[2]}-{number}-{of.identity}"
    return {
        "type": kind,
        "command_id": command_id(of.resource_id, step, 1),
        "saga_id": of.resource_id,
        "step": step,
        "attempt": 1,
        "tenant": of.tenant,
        "identity": of.identity,
        "body_hash": of.body_hash,
        "slot": slot_of(part),
        "home_account": part,
        "requested_at_us": at_us,
        "transfer_id": of.resource_id,
        "legs": [dict(zip(records.LEG, leg, strict=True)) for leg in of.legs or ()],
        "original_id": of.target_id,
        "original_legs": of.original_legs,
        "reference": of.reference,
        "metadata": of.metadata,
        "reason": linked.reason,
        "failed_leg": linked.failed_leg,
    }
