"""What several homes have agreed on: each posts its legs, and tells of them apart. Pure.

What a client has said, and when the transfer was booked, is what the transfer's own home says; the
others add their entries. They are put in the order of the legs, whoever told of them first. Of a
reversal each says what is paid back, and how much of it in all. Readers pass a row over that has
not all `legs_total` of them yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from schemas.ids import slot_of

Event = dict[str, Any]

COMMITTED: Final = "transfer.committed"


@dataclass(slots=True)
class Part:
    """What is known of a transfer from one or more homes. `home`: its own is one of them."""

    said_by: Event
    home: bool
    sides: dict[tuple[int, int], Event]

    @property
    def entries(self) -> list[Event]:
        """Return the entries in the order of the legs, the debit first."""
        return [self.sides[key] for key in sorted(self.sides)]


def at_home(event: Event) -> bool:
    """Tell whether the home of a transfer speaks, which ends it once; others only take part."""
    home: bool = event["slot"] == slot_of(event["transfer_id"])
    return home


def fold(parts: dict[str, Part], event: Event) -> None:
    """Take in one event of kind COMMITTED."""
    entries, home = event["entries"], at_home(event)
    sides = {
        (leg, side): {**entries[2 * n + side], "leg": leg, "at_us": event["booked_at_us"]}
        for n, leg in enumerate(event["leg_indexes"])
        for side in (0, 1)
    }
    known = parts.get(event["transfer_id"])
    if known is None:
        parts[event["transfer_id"]] = Part(event, home, sides)
        return
    known.sides |= sides
    if home:
        known.said_by, known.home = event, True


def row_of(transfer_id: str, part: Part) -> tuple[Any, ...]:
    """Return the row; position 0: the transfer's own home has not spoken yet."""
    said = part.said_by
    return (
        transfer_id,
        said["tenant"],
        said["original_id"],
        said["amount_minor"],
        said["reference"],
        orjson.dumps(said["metadata"]).decode(),
        orjson.dumps(part.entries).decode(),
        said["booked_at_us"],
        said["effective_at_us"],
        said["position"] if part.home else 0,
        said["legs_total"],
    )
