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


def decode(data: bytes) -> Reply:
    """Decode one reply; Poisoned when its bytes are not one."""
    return msgspec.convert(wire.decode(TOPIC, data), Reply)
