"""How deciders answer: what became of a command, or why a movement can't be made. Values only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from ledger_writer.model import Entry, Row


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What a command came to; `facts` go into the row's `extra` beside what it asked for.

    So does `linked`: what this partition keeps, moves or gives up of what several must agree on.
    """

    type: str
    reason: str | None = None
    failed_leg: int | None = None
    entries: tuple[Entry, ...] = ()
    repeats: Row | None = None
    facts: dict[str, object] | None = None
    linked: dict[str, object] | None = None


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Why a movement can't be made, and the index of its leg."""

    reason: str
    leg: int | None = None
