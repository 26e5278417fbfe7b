"""The task's collections, and how a saga or an operation is found in them.

A key is looked for in the current and the previous generation (see `dedup`); what is found stays
under the key that it was found under.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from streams.engine import Collection, Context
from streams.payments import dedup, state, velocity
from streams.payments.state import Operation, Saga
from streams.payments.velocity import Profile

T = TypeVar("T", bound=msgspec.Struct)

SAGAS: Collection[Saga] = Collection(1, "sagas", encode=state.encode, decode=state.decode)
PROFILES: Collection[Profile] = Collection(
    2, "profiles", encode=velocity.encode, decode=velocity.decode
)
POSITIONS: Collection[int] = Collection(
    3, "positions", encode=lambda n: n.to_bytes(8, "big"), decode=lambda b: int.from_bytes(b, "big")
)
OPERATIONS: Collection[Operation] = Collection(
    4, "operations", encode=state.encode, decode=state.decode_operation
)


def find(
    context: Context, collection: Collection[T], slot: int, identity: str, at_us: int
) -> tuple[T | None, bytes]:
    """Return what is kept under `identity` and its key; without it, the key to keep it under."""
    current, previous = dedup.keys(identity, at_us)
    found = context.get(collection, slot, current)
    if found is not None:
        return found, current
    found = context.get(collection, slot, previous)
    return found, current if found is None else previous
