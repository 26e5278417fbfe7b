"""Named crash points: where a drill asks, the process dies by SIGKILL at exactly that line.

`HEADRACE_CRASH_POINT=after_commit` dies at the first pass, `after_commit:20` at the twentieth.
Unset, a point costs one comparison. A service names its points by a class of its own.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(slots=True)
class CrashPoint:
    """The one point at which this process is to die, if any; `countdown` passes from now."""

    points: ClassVar[tuple[str, ...]] = ()
    """Those that there are; none named: any."""

    name: str = ""
    countdown: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the setting; raises ValueError on an unknown point."""
        name, _, count = text.partition(":")
        if name and cls.points and name not in cls.points:
            raise ValueError(f"crash point {name!r} is not one of {', '.join(cls.points)}")
        return cls(name, int(count or "1"))

    def at(self, name: str) -> None:
        """Die, if this is the point and the time."""
        if self.name == name:
            self.countdown -= 1
            if self.countdown <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
