"""The crash points of the ledger writer; see `schemas.crash`."""

from __future__ import annotations

from typing import ClassVar, Final

from schemas import crash

POINTS: Final = (
    "after_acquire",
    "in_gap",
    "after_gap_filled",
    "after_take",
    "after_bury",
    "after_look",
    "after_decide",
    "after_refused",
    "after_commit",
    "after_publish",
    "on_stop",
)


class CrashPoint(crash.CrashPoint):
    """One of `POINTS`, or none."""

    __slots__ = ()
    points: ClassVar[tuple[str, ...]] = POINTS
