"""When the next transaction may begin: at once while there are few, every commit interval under
load.

Pure. A transaction costs the machine about the same whatever its size, so a process has a budget
of them: a bucket that fills steadily. No partition is made to wait longer than the commit
interval, nor with a full batch at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

PER_INTERVAL: Final = 4.0
"""Transactions of one process per commit interval: with 100 ms they cost at most a tenth of a
two-core machine (5 ms of CPU each, client and broker)."""

BURST: Final = 8.0


@dataclass(slots=True)
class Pace:
    """The budget of one process. Times are seconds of any steady clock."""

    interval_s: float
    per_interval: float = PER_INTERVAL
    burst: float = BURST
    _tokens: float = field(init=False)
    _filled_at: float = 0.0

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def reserve(self, now: float, last_began: float) -> float:
        """Take a place for a batch; returns how long it has to wait, if its partition's last batch
        began then."""
        self._fill(now)
        self._tokens = max(self._tokens - 1.0, -self.per_interval)
        if self._tokens >= 0.0:
            return 0.0
        until_place = -self._tokens * self.interval_s / self.per_interval
        until_interval = last_began + self.interval_s - now
        return max(0.0, min(until_place, until_interval))

    def _fill(self, now: float) -> None:
        gained = (now - self._filled_at) * self.per_interval / self.interval_s
        self._tokens = min(self.burst, self._tokens + max(0.0, gained))
        self._filled_at = now
