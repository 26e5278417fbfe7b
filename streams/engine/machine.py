"""How much of this machine is idle: the kernel's count, looked at a few times a second.

Only the pace of transactions rests on it. Where the kernel does not tell (no /proc), nothing counts
as idle. A container sees the whole machine here, not its own share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

LOOK_EVERY_S: Final = 0.1
_STAT: Final = Path("/proc/stat")


class Machine:
    """Answers from the last look; `now` is any steady clock in seconds."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._looked_at = 0.0
        self._idle, self._all = self._times()
        self._spare = 0.0

    def spare(self, now: float) -> float:
        """Return the share of the machine that was idle of late, 0 to 1."""
        if now - self._looked_at >= LOOK_EVERY_S:
            idle, total = self._times()
            if total > self._all:
                share = (idle - self._idle) / (total - self._all)
                self._spare = (self._spare + min(1.0, max(0.0, share))) / 2
            self._looked_at, self._idle, self._all = now, idle, total
        return self._spare

    def _times(self) -> tuple[int, int]:
        """Return ticks spent idle and ticks in all, since the machine started."""
        try:
            with self._stat.open() as lines:
                ticks = [int(each) for each in lines.readline().split()[1:9]]
        except OSError:
            return 0, 0
        return sum(ticks[3:5]), sum(ticks)
