"""What a batch of the ledger's events changes of holds, folded to one row a hold. Pure.

A hold is placed and ends in one partition, so its events are in the order of their positions, and
the newest position wins. A repeat tells what was once and says nothing; neither does a refusal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

Event = dict[str, Any]

KINDS: Final = frozenset({"hold.placed", "hold.posted", "hold.voided"})

OPEN: Final = "open"
CAPTURED: Final = "captured"


@dataclass(slots=True)
class Holds:
    """`placed` and `changed` hold rows in the order of their statements; the position lies last."""

    placed: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    changed: dict[str, tuple[Any, ...]] = field(default_factory=dict)


def fold(holds: Holds, event: Event) -> None:
    """Take in one event of KINDS."""
    if event["repeated"]:
        return
    hold_id = event["hold_id"]
    now = (event["remaining_minor"], _state(event), event["booked_at_us"], event["position"])
    if event["type"] == "hold.placed":
        holds.placed.setdefault(hold_id, (*_placed(event), *now))
    elif hold_id in holds.placed:
        row = holds.placed[hold_id]
        if row[-1] < now[-1]:
            holds.placed[hold_id] = (*row[:-4], *now)
    elif hold_id not in holds.changed or holds.changed[hold_id][-1] < now[-1]:
        holds.changed[hold_id] = (hold_id, *now)


def _placed(event: Event) -> tuple[Any, ...]:
    [entry] = event["entries"]
    return (
        event["hold_id"],
        event["tenant"],
        entry["account_id"],
        event["saga_id"],
        entry["currency"],
        event["amount_minor"],
        event["booked_at_us"],
        event["expires_at_us"],
    )


def _state(event: Event) -> str:
    """Return how the hold stands: a void tells by its reason whether it was asked for."""
    if event["remaining_minor"]:
        return OPEN
    state: str = event["reason"] if event["type"] == "hold.voided" else CAPTURED
    return state
