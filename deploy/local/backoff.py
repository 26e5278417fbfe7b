"""How long to wait before a process that died is started again. Pure."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 0.1
LONGEST_S: Final = 5.0
STABLE_S: Final = 5.0


def next_delay_s(previous_s: float, ran_s: float) -> float:
    """Twice the last wait, up to a bound; the shortest again once it had run for a while."""
    if ran_s >= STABLE_S or previous_s == 0:
        return FIRST_S
    return min(previous_s * 2, LONGEST_S)
