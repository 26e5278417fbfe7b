"""A latency histogram with a bounded relative error, small enough to keep one per route and second.

Pure. Buckets grow by 2 % (so a quantile is at most 2 % above the true value), from a microsecond
upwards; a value costs one logarithm and one dictionary update. Values are in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FLOOR_S: Final = 1e-6
_GROWTH: Final = math.log(1.02)

QUANTILES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "p999": 0.999}


@dataclass(slots=True)
class Histogram:
    """Counts per logarithmic bucket; `total`, `low` and `high` are exact."""

    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0
    low: float = math.inf
    high: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one value; below a microsecond, zero and less land in the first bucket."""
        index = 0 if seconds <= _FLOOR_S else math.ceil(math.log(seconds / _FLOOR_S) / _GROWTH)
        self.counts[index] = self.counts.get(index, 0) + 1
        self.total += 1
        self.low = min(self.low, seconds)
        self.high = max(self.high, seconds)

    def merge(self, other: Histogram) -> None:
        """Add another's counts to these."""
        for index, count in other.counts.items():
            self.counts[index] = self.counts.get(index, 0) + count
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    def quantile(self, q: float) -> float:
        """Return a value that a share `q` of all lies at or below, at most 2 % too high."""
        if self.total == 0:
            return 0.0
        wanted, seen = q * self.total, 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen >= wanted:
                return max(self.low, min(self.high, _FLOOR_S * math.exp(index * _GROWTH)))
        return self.high


def quantiles_ms(values_s: Iterable[float]) -> dict[str, float]:
    """Return p50, p95, p99 and p999 of the values, exact, in milliseconds."""
    ordered = sorted(values_s)
    return {name: round(exact_quantile(ordered, q) * 1000, 2) for name, q in QUANTILES.items()}


def exact_quantile(ordered: Sequence[float], q: float) -> float:
    """Return the smallest of the ascending values that a share `q` lies at or below; 0 of none."""
    if not ordered:
        return 0.0
    # In millionths: 0.07 of 100 is a trace more than 7 in binary, and still the seventh.
    rank = -(-int(q * len(ordered) * 1e6) // 1_000_000)
    return ordered[max(0, rank - 1)]
