"""Which time a kill took from payments: from the kill until its backlog is gone. Pure.

A window opens at the kill. It closes when the role is back (a new process is ready and has made
progress) and every payment that had been sent by then has its final event. A payment counts as
outside of kills only if no part of its life lies in a window. Times are seconds after the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Life = tuple[float, float]
"""When a payment was meant to be sent, and when its final event was seen."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: of whom, when, and when the role was ready and making progress again."""

    role: str
    name: str
    at_s: float
    ready_s: float | None
    back_s: float | None

    @property
    def back_after_s(self) -> float | None:
        """Return the time from the kill to new progress; None if there was none."""
        return None if self.back_s is None else self.back_s - self.at_s


@dataclass(frozen=True, slots=True)
class Window:
    """The time that a kill touched."""

    role: str
    start_s: float
    end_s: float


def windows(kills: Iterable[Kill], lives: Sequence[Life], end_s: float) -> list[Window]:
    """Return a window per kill; one without recovery lasts until `end_s`."""
    found = []
    for kill in kills:
        back = end_s if kill.back_s is None else kill.back_s
        caught = (seen for sent, seen in lives if sent <= back and seen >= kill.at_s)
        found.append(Window(kill.role, kill.at_s, max(back, max(caught, default=back))))
    return found


def outside(lives: Iterable[Life], closed: Sequence[Window]) -> list[Life]:
    """Return the lives that touch no window."""
    return [
        (sent, seen)
        for sent, seen in lives
        if all(seen < window.start_s or sent > window.end_s for window in closed)
    ]
