"""When the next transaction may begin: at once while there are few, every commit interval under
load.

Pure. A transaction costs the machine about the same whatever its size, so a process has a budget
of them: a bucket that fills steadily. No partition is made to wait longer than the commit
interval, nor with a full batch at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PER_SECOND: Final = 40.0
"""Transactions of one process that cost at most a tenth of a two-core machine (5 ms each)."""


@dataclass(slots=True)
class Pace:
    """The budget of one process. Times are seconds of any steady clock."""

    interval_s: float
    per_second: float = PER_SECOND
    burst: float = 8.0
    _tokens: float = 8.0
    _filled_at: float = 0.0

    def delay(self, now: float, last_began: float) -> float:
        """How long a partition whose last batch began then has to wait now."""
        self._fill(now)
        if self._tokens >= 1.0:
            return 0.0
        until_token = (1.0 - self._tokens) / self.per_second
        until_interval = last_began + self.interval_s - now
        return max(0.0, min(until_token, until_interval))

    def began(self, now: float) -> None:
        """A batch begins."""
        self._fill(now)
        self._tokens = max(0.0, self._tokens - 1.0)

    def _fill(self, now: float) -> None:
        gained = (now - self._filled_at) * self.per_second
        self._tokens = min(self.burst, self._tokens + max(0.0, gained))
        self._filled_at = now
