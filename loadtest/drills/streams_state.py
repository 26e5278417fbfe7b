"""Reads the state that a drilled worker left, in its changelog and on its disk.

Knows how state keys are laid out (slot, collection, key) and nothing else of the engine, whose own
keys it only tells apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import rocksdict

from loadtest.drills.streams_model import Logged

HEAD_BYTES: Final = 3
OWN_FROM: Final = 240
"""Collections from here on are the engine's."""
TIMERS: Final = 254
LOCAL: Final = (b"\xff\xfe", b"\xff\xfd")
"""Key prefixes that stay on the disk: how far it is, and timers by due time."""

State = dict[int, dict[bytes, bytes]]


def last_values(changelog: Iterable[Logged]) -> dict[bytes, bytes]:
    """Return what a changelog says: each key's last value, deleted ones left out."""
    values: dict[bytes, bytes] = {}
    for record in changelog:
        if record.value is None:
            values.pop(record.key, None)
        else:
            values[record.key] = record.value
    return values


def split_state(values: dict[bytes, bytes]) -> tuple[State, int]:
    """Return the task's state by collection and key, and how many timers are pending."""
    state: State = defaultdict(dict)
    timers = 0
    for key, value in values.items():
        collection = key[HEAD_BYTES - 1]
        if collection < OWN_FROM:
            state[collection][key[HEAD_BYTES:]] = value
        timers += collection == TIMERS and key[0] != 0xFF
    return dict(state), timers


def local_differences(path: Path, changelog: dict[bytes, bytes]) -> int:
    """Return in how many keys a store that was closed differs from its changelog."""
    store = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    try:
        kept = {key: value for key, value in store.items() if not key.startswith(LOCAL)}
    finally:
        store.close()
    return sum(kept.get(key) != changelog.get(key) for key in kept.keys() | changelog.keys())
