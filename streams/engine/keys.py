"""How state is keyed, in the store and in the changelog.

State key: slot (2 bytes, big-endian), collection id (1), then the caller's key; so a slot is one
range, and so is a generation of a slot in a collection that is kept in generations. Slots end at
1023: keys from 0xfffd on are the engine's own. Local keys never leave the store; the others are the
same in the changelog.
"""

from __future__ import annotations

from typing import Final

ENGINE_FROM: Final = 240
"""Collection ids from here on are the engine's."""

DROPPED_ID: Final = 252
SHELVES_ID: Final = 253
"""What generations a slot of a collection has, and up to which they were dropped."""

TIMERS_ID: Final = 254
"""Collection of pending timers by name: value = due time in microseconds (8 bytes), then the
payload.
"""

POSITION: Final = b"\xff\xff\xf0position"
"""Changelogged: the offsets applied per input, and log time, as of the batch that wrote it."""

LOCAL: Final = b"\xff\xfe"
LOCAL_MARK: Final = LOCAL + b"mark"
"""Local: how far in the changelog this store is, and of which cluster."""

DUE: Final = b"\xff\xfd"
"""Local: timers by due time: DUE, due time (8), slot (2), key. Entries may be stale, never
missing.
"""

NO_SLOT: Final = 0xFF
"""The first byte of keys that are no slot's."""

COLLECTION_AT: Final = 2
"""Where a state key has its collection's id."""

_SLOT: Final = 2
_HEAD: Final = 3
_TIME: Final = 8


def prefix(slot: int, collection_id: int) -> bytes:
    """Return the head of the state keys of one slot of one collection."""
    return slot.to_bytes(_SLOT, "big") + bytes((collection_id,))


def slot_of(state_key: bytes) -> int:
    """Read the slot of a state key."""
    return int.from_bytes(state_key[:_SLOT], "big")


def name_of(state_key: bytes) -> bytes:
    """Read the caller's key of a state key."""
    return state_key[_HEAD:]


def time_bytes(time_us: int) -> bytes:
    """Return a time so that bytes sort as times do; negative times do not exist."""
    return time_us.to_bytes(_TIME, "big")


def time_of(value: bytes) -> int:
    """Read the time at the start of a value."""
    return int.from_bytes(value[:_TIME], "big")


def after_time(value: bytes) -> bytes:
    """Return what follows the time at the start of a value."""
    return value[_TIME:]


def due_entry(timer_key: bytes, value: bytes) -> bytes:
    """Return the due-order entry of a pending timer."""
    return DUE + value[:_TIME] + timer_key[:_SLOT] + timer_key[_HEAD:]


def due_limit(time_us: int) -> bytes:
    """Return the key that all entries due up to and including `time_us` sort before."""
    return DUE + time_bytes(time_us + 1)


def due_of(entry: bytes) -> int:
    """Read the due time of a due-order entry."""
    return int.from_bytes(entry[len(DUE) : len(DUE) + _TIME], "big")


def timer_key_of(entry: bytes) -> bytes:
    """Return the state key of the timer that a due-order entry points to."""
    rest = entry[len(DUE) + _TIME :]
    return rest[:_SLOT] + bytes((TIMERS_ID,)) + rest[_SLOT:]


def is_timer(state_key: bytes) -> bool:
    """Tell whether a state key is a pending timer's."""
    return state_key[COLLECTION_AT] == TIMERS_ID and state_key[0] != NO_SLOT


def dropped_range(state_key: bytes, floor: bytes) -> tuple[bytes, bytes]:
    """Return what a value of the collection `DROPPED_ID` takes away: from a key to before one."""
    head = state_key[:_SLOT] + name_of(state_key)
    return head, head + floor
