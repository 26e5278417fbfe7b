"""What became of a request that waited, as gateway.replies tells it. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from schemas import wire

TOPIC: Final = "gateway.replies"


class Step(msgspec.Struct, frozen=True, gc=False):
    """One step of a resource's timeline."""

    at_us: int
    event: str
    reason: str | None = None


class Share(msgspec.Struct, frozen=True, gc=False):
    """The version of an account's share that a read must have reached."""

    account_id: str
    share: int
    version: int


class EntryTold(msgspec.Struct, frozen=True, gc=False):
    """One side of a movement that the outcome posted."""

    account_id: str
    share: int
    version: int
    amount_minor: int
    currency: str
    posted_minor: int
    held_minor: int


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What became of one request that waited."""

    request_id: str
    resource_id: str
    identity: str
    status: str
    version: int
    reason: str | None
    detail: str | None
    conflict: bool
    repeated: bool
    occurred_at_us: int
    timeline: tuple[Step, ...] = ()
    shares: tuple[Share, ...] = ()
    operation_id: str | None = None
    failed_leg: int | None = None
    captured_minor: int | None = None
    refunded_minor: int | None = None
    expires_at_us: int | None = None
    booked_at_us: int | None = None
    effective_at_us: int | None = None
    debits_frozen: bool | None = None
    credits_frozen: bool | None = None
    entries: tuple[EntryTold, ...] = ()

    @property
    def name(self) -> str:
        """What the request is remembered by: its operation, or the resource that it made.

        A reversal is an operation that makes a transfer of its own.
        """
        made = self.operation_id is None or self.resource_id.startswith("tr_")
        return self.resource_id if made else f"op_{self.operation_id}"


def decode(data: bytes) -> Reply:
    """Decode one reply; Poisoned when its bytes are not one."""
    return msgspec.convert(wire.decode(TOPIC, data), Reply)
