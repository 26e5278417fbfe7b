"""When each request is meant to leave: seconds after the start, rising, fixed beforehand.

Pure. A constant rate shows a server's own jitter; Poisson arrivals are what independent clients do
and make bursts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from random import Random

Arrivals = Literal["constant", "poisson"]


def times(count: int, rate: float, arrivals: Arrivals, random: Random) -> list[float]:
    """Return `count` rising times with a mean of `rate` a second."""
    if rate <= 0:
        raise ValueError(f"the rate must be above zero, not {rate}")
    if arrivals == "constant":
        return [i / rate for i in range(count)]
    at, result = 0.0, []
    for _ in range(count):
        result.append(at)
        at += random.expovariate(rate)
    return result
