"""When the next transaction may begin: at once while there are few, spread out under load.

Pure. A transaction costs the machine about the same whatever its size, so a process has a budget
of them: a bucket that fills steadily, faster while the machine has time to spare, which small
transactions then turn into lower latency. No partition is made to wait longer than the commit
interval, nor with a full batch at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

PER_INTERVAL: Final = 4.0
"""Transactions of one process per commit interval on a busy machine: with 100 ms they cost at most
a tenth of two cores (5 ms of CPU each, client and broker)."""

IDLE_TIMES: Final = 8.0
"""How many times as many there may be on an idle machine."""

SPARE_LEAST: Final = 0.02
SPARE_PLENTY: Final = 0.12
"""Between these shares of idle time the budget grows in proportion."""

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

    def reserve(self, now: float, last_began: float, spare: float = 0.0) -> float:
        """Take a place for a batch; returns how long it has to wait, if its partition's last batch
        began then and `spare` of the machine is idle."""
        plenty = (spare - SPARE_LEAST) / (SPARE_PLENTY - SPARE_LEAST)
        each_s = self.interval_s / self.per_interval
        each_s /= 1.0 + (IDLE_TIMES - 1.0) * min(1.0, max(0.0, plenty))
        self._fill(now, each_s)
        self._tokens = max(self._tokens - 1.0, -self.per_interval)
        if self._tokens >= 0.0:
            return 0.0
        until_place = -self._tokens * each_s
        until_interval = last_began + self.interval_s - now
        return max(0.0, min(until_place, until_interval))

    def _fill(self, now: float, each_s: float) -> None:
        gained = (now - self._filled_at) / each_s
        self._tokens = min(self.burst, self._tokens + max(0.0, gained))
        self._filled_at = now
