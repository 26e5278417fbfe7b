"""Named crash points: where a drill asks, the process dies by SIGKILL at exactly that line.

`HEADRACE_CRASH_POINT=after_commit` dies at the first pass, `after_commit:20` at the twentieth.
Unset, a point costs one comparison.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Final

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


@dataclass(slots=True)
class CrashPoint:
    """The one point at which this process is to die, if any; `countdown` passes from now."""

    name: str = ""
    countdown: int = 1

    @classmethod
    def parse(cls, text: str) -> CrashPoint:
        """Read the setting; raises ValueError on an unknown point."""
        name, _, count = text.partition(":")
        if name and name not in POINTS:
            raise ValueError(f"crash point {name!r} is not one of {', '.join(POINTS)}")
        return cls(name, int(count or "1"))

    def at(self, name: str) -> None:
        """Die, if this is the point and the time."""
        if self.name == name:
            self.countdown -= 1
            if self.countdown <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
