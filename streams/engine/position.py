"""How far a partition is, and whether everyone agrees on it.

Pure. The offsets applied and the log time are kept with the state, in the store and in the
changelog, by the same transaction that commits the group's offsets. So the two can differ only
while a broker has not told both of a transaction's end, or when somebody changed one of them from
outside, and then going on would lose or double records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from schemas.errors import Corrupt


@dataclass(frozen=True, slots=True)
class Position:
    """The next offset per input topic, and log time, of one partition."""

    offsets: Mapping[str, int]
    log_time_us: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """What the broker says of one input: its first offset, and what the group has committed."""

    first: int
    committed: int | None


class Disagreement(Corrupt):
    """State and group have been told of different transactions."""


def agreed(group: str, partition: int, kept: Position, heard: Mapping[str, Heard]) -> Position:
    """Return where to read on; Disagreement when state and group differ, Corrupt when records have
    gone unread.

    A group that has forgotten its offsets (they expire) is no disagreement: the state knows them.
    """
    offsets = {}
    for topic, said in heard.items():
        ours = kept.offsets.get(topic)
        if said.committed is not None and said.committed != ours:
            raise Disagreement(
                f"task {group}: the state has applied {topic}[{partition}] up to {ours}, the group"
                f" {group} has committed {said.committed}: the changelog or the group's offsets"
                " were changed from outside; restore the one that was"
            )
        offsets[topic] = said.first if ours is None else ours
        if offsets[topic] < said.first:
            raise Corrupt(
                f"task {group}: {topic}[{partition}] begins at {said.first}, but only what lies"
                f" before {ours} has been read: retention has passed it"
            )
    return Position(offsets, kept.log_time_us)


def encode_position(position: Position) -> bytes:
    """Return the changelogged form."""
    return msgspec.json.encode(
        {"offsets": dict(sorted(position.offsets.items())), "log_time_us": position.log_time_us}
    )


def decode_position(raw: bytes) -> Position:
    """Read a position as it stands in the changelog."""
    fields = msgspec.json.decode(raw)
    return Position(fields["offsets"], fields["log_time_us"])
