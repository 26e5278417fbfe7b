"""What the payments task remembers: one record per resource and one per operation, bounded. Pure.

The record is the saga while it runs, and after it the memory that answers repeats of its key.
Encoded as MessagePack arrays: fields may be appended, with a default, and never moved.
"""

from __future__ import annotations

from typing import Final

import msgspec

from streams.payments.operation import OperationState
from streams.payments.saga import State

WAITERS_MAX: Final = 8
"""Requests that may wait on one resource at once; a further one polls."""
CONFLICTS_MAX: Final = 16
"""Conflicts that a timeline shows; further ones are still refused."""
TIMELINE_MAX: Final = 256
"""Steps that a reply shows; the read model has them all."""


Share = tuple[str, int, int]
"""An account, one of its shares, and the version that the share has reached."""


class Waiter(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request that waits: where its gateway listens, its id, and whether it repeated another."""

    reply_partition: int
    request_id: str
    repeated: bool


class Moved(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One side of a leg, as one of several homes has posted it."""

    leg: int
    account_id: str
    share: int
    version: int
    amount_minor: int
    currency: str
    posted_minor: int
    held_minor: int


class Linked(msgspec.Struct, array_like=True, gc=False):
    """How far homes that must agree have come.

    `parts` names an account at each, the saga's own first; `waiting` those, by number, who have not
    answered what was asked last. `place` is where the saga's own home ended its part; `released`
    are the shares, with their versions, where what was held was given back. `amount_minor` and
    `remaining_minor` are what a reversal pays back, and leaves to pay back.
    """

    parts: list[str]
    waiting: list[int] = []
    moved: list[Moved] = []
    reason: str | None = None
    detail: str | None = None
    failed_leg: int | None = None
    place: tuple[int, int] | None = None
    booked_at_us: int = 0
    released: list[Share] = []
    amount_minor: int | None = None
    remaining_minor: int | None = None


Legs = list[tuple[str, str, int, str]]
"""Source, destination, amount and currency of each."""


class Saga(msgspec.Struct, array_like=True, gc=False):
    """A payment, a transfer or an account opening. Times are log time in microseconds.

    `legs` are kept of a transfer until it is decided: source, destination, amount, currency; so are
    `reference` and `metadata`, which each home's log tells again.
    """

    resource_id: str
    tenant: str
    idempotency_key: str
    body_hash: str
    home_account: str
    request_id: str
    received_at_us: int
    accepted_at_us: int
    state: State
    version: int
    amount_minor: int | None
    currency: str | None
    source_account: str | None
    destination_account: str | None
    method: str
    capture: str | None
    reason: str | None = None
    detail: str | None = None
    conflicts: int = 0
    timeline: list[tuple[int, str, str | None]] = []
    waiters: list[Waiter] = []
    shares: list[Share] = []
    authorized_minor: int | None = None
    captured_minor: int | None = None
    refunded_minor: int | None = None
    expires_at_us: int | None = None
    effective_at_us: int | None = None
    dry_run: bool = False
    legs: Legs | None = None
    linked: Linked | None = None
    expiry_attempt: int = 1
    reference: str | None = None
    metadata: dict[str, str] = {}


class Operation(msgspec.Struct, array_like=True, gc=False):
    """A capture, void, refund, reversal, freeze, unfreeze or close, under its own key.

    `target_id`, and what follows it, are kept of a reversal until it has ended: `legs` and
    `original_legs`, which homes must agree to, and what each home's log tells again.
    """

    identity: str
    kind: str
    resource_id: str
    body_hash: str
    tenant: str
    home_account: str
    state: OperationState
    reason: str | None = None
    detail: str | None = None
    waiters: list[Waiter] = []
    target_id: str | None = None
    legs: Legs | None = None
    original_legs: list[int] = []
    linked: Linked | None = None
    reference: str | None = None
    metadata: dict[str, str] = {}


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Saga).decode
decode_operation = msgspec.msgpack.Decoder(Operation).decode
