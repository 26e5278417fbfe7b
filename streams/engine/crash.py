"""The crash points of the stream engine; see `schemas.crash`."""

from __future__ import annotations

from typing import ClassVar, Final

from schemas import crash

POINTS: Final = (
    "after_fence",
    "in_restore",
    "after_restore",
    "after_handle",
    "after_begin",
    "in_send",
    "after_offsets",
    "after_send",
    "after_commit",
    "after_store",
    "on_stop",
)


class CrashPoint(crash.CrashPoint):
    """One of `POINTS`, or none."""

    __slots__ = ()
    points: ClassVar[tuple[str, ...]] = POINTS
