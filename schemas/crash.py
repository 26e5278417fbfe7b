"""Named crash points: where a drill asks, the process dies by SIGKILL at exactly that line.

`HEADRACE_CRASH_POINT=after_commit` dies at the first pass, `after_commit:20` at the twentieth;
`after_commit:20:pause` stops there (SIGSTOP) until somebody wakes it up. Unset, a point costs one
comparison. A service names its points by a class of its own.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import ClassVar, Final, Self

_PAUSE: Final = "pause"


@dataclass(slots=True)
class CrashPoint:
    """The one point at which this process is to die, if any; `countdown` passes from now."""

    points: ClassVar[tuple[str, ...]] = ()
    """Those that there are; none named: any."""

    name: str = ""
    countdown: int = 1
    ends_by: signal.Signals = signal.SIGKILL

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the setting; raises ValueError on an unknown point."""
        name, _, count = text.partition(":")
        count, _, way = count.partition(":")
        if name and cls.points and name not in cls.points:
            raise ValueError(f"crash point {name!r} is not one of {', '.join(cls.points)}")
        if way not in {"", _PAUSE}:
            raise ValueError(f"a crash point kills, or is to {_PAUSE!r}, not to {way!r}")
        return cls(name, int(count or "1"), signal.SIGSTOP if way else signal.SIGKILL)

    def at(self, name: str) -> None:
        """Die, if this is the point and the time."""
        if self.name == name:
            self.countdown -= 1
            if self.countdown == 0:
                os.kill(os.getpid(), self.ends_by)
