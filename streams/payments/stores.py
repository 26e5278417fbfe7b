"""The task's collections, and how a saga or an operation is found in them.

Sagas and operations are the memory of the keys that began them, and go with their generation. One
that is still under way never goes: it moves on.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from streams.engine import Collection, Context, generations
from streams.payments import state, velocity
from streams.payments.operation import UNDER_WAY
from streams.payments.saga import State
from streams.payments.state import Operation, Saga
from streams.payments.velocity import Profile

T = TypeVar("T", bound=msgspec.Struct)

_ENDED: Final = frozenset(
    {
        State.SETTLED,
        State.REJECTED,
        State.VOIDED,
        State.EXPIRED,
        State.PARTIALLY_REFUNDED,
        State.REFUNDED,
        State.OPENED,
        State.TRANSFERRED,
    }
)
"""Where nothing is awaited any more. A state that is missing here is under way."""


def _saga_under_way(saga: Saga) -> bool:
    return saga.state not in _ENDED


def _operation_under_way(operation: Operation) -> bool:
    return operation.state in UNDER_WAY


SAGAS: Collection[Saga] = Collection(
    1, "sagas", encode=state.encode, decode=state.decode, carry=_saga_under_way
)
PROFILES: Collection[Profile] = Collection(
    2, "profiles", encode=velocity.encode, decode=velocity.decode
)
POSITIONS: Collection[int] = Collection(
    3, "positions", encode=lambda n: n.to_bytes(8, "big"), decode=lambda b: int.from_bytes(b, "big")
)
OPERATIONS: Collection[Operation] = Collection(
    4,
    "operations",
    encode=state.encode,
    decode=state.decode_operation,
    carry=_operation_under_way,
)


def find(
    context: Context, collection: Collection[T], slot: int, identity: str, at_us: int
) -> tuple[T | None, bytes]:
    """Return what is remembered under `identity`, or None, and the key to put it under."""
    return generations.find(context, collection, slot, identity.encode(), at_us)
