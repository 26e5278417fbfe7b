"""Transfers as clients get them: from the request and its reply, or from the view. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from gateways.kafka.reply import EntryTold, Reply
from gateways.payments.present import ACCEPTED, Reason, reason_of
from gateways.payments.times import timestamp


class LegOut(msgspec.Struct, frozen=True):
    """One movement."""

    source: str
    destination: str
    amount: int
    currency: str


class TransferEntry(msgspec.Struct, frozen=True):
    """One side of a movement; `posted` and `held` are the share's after it."""

    account: str
    amount: int
    currency: str
    share: int
    version: int
    posted: int
    held: int


class Transfer(msgspec.Struct, frozen=True):
    """Movements that were posted together, or not at all: `accepted`, `posted` or `rejected`.

    A dry run that would have been posted is `allowed`, and has no entries. `reverses` names the
    transfer that this one pays back; `reversed_amount` is what was paid back of this one so far.
    `entries` are empty until it is posted.
    """

    id: str
    status: str
    legs: list[LegOut]
    entries: list[TransferEntry]
    reference: str | None
    metadata: dict[str, str]
    reason: Reason | None
    reverses: str | None
    reversed_amount: int
    dry_run: bool
    effective_at: str | None
    booked_at: str | None


class TransferList(msgspec.Struct, frozen=True):
    """Newest first; `next_cursor` is null on the last page."""

    data: list[Transfer]
    next_cursor: str | None


def transfer(record: dict[str, Any], outcome: Reply | None) -> Transfer:
    """Show the transfer or reversal that a request asked for, with the outcome if there is one."""
    sides = list(outcome.entries) if outcome else []
    effective_at_us, booked_at_us = record.get("effective_at_us"), None
    if outcome is not None:
        booked_at_us = outcome.booked_at_us
        effective_at_us = outcome.effective_at_us or effective_at_us or booked_at_us
    return Transfer(
        id=record["resource_id"],
        status=_status(outcome, dry_run=record.get("dry_run", False)),
        legs=[_asked(leg) for leg in record.get("legs", ())] or legs_of(sides),
        entries=[entry(side) for side in sides],
        reference=record.get("reference"),
        metadata=record.get("metadata", {}),
        reason=reason_of(outcome.reason, outcome.detail) if outcome else None,
        reverses=record.get("target_id"),
        reversed_amount=0,
        dry_run=record.get("dry_run", False),
        effective_at=timestamp(effective_at_us) if effective_at_us is not None else None,
        booked_at=timestamp(booked_at_us) if booked_at_us is not None else None,
    )


def entry(side: EntryTold) -> TransferEntry:
    """Show one side of a movement."""
    return TransferEntry(
        side.account_id,
        side.amount_minor,
        side.currency,
        side.share,
        side.version,
        side.posted_minor,
        side.held_minor,
    )


def legs_of(sides: list[EntryTold]) -> list[LegOut]:
    """Return the movements that made these entries: debit and credit by turns."""
    return [
        LegOut(debit.account_id, credit.account_id, credit.amount_minor, credit.currency)
        for debit, credit in zip(sides[::2], sides[1::2], strict=True)
    ]


def _status(outcome: Reply | None, *, dry_run: bool) -> str:
    if outcome is None:
        return ACCEPTED
    if outcome.reason is not None:
        return "rejected"
    return "allowed" if dry_run else "posted"


def _asked(leg: dict[str, Any]) -> LegOut:
    return LegOut(leg["source"], leg["destination"], leg["amount_minor"], leg["currency"])
