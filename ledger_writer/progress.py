"""Says on stderr, about once a second, how far a long piece of work has come."""

from __future__ import annotations

import sys
import time
from typing import Final

EVERY_S: Final = 1.0


class Progress:
    """Silent when it has no name."""

    def __init__(self, name: str | None, unit: str = "rows") -> None:
        self._name = name
        self._unit = unit
        self._began = self._said_at = time.monotonic()

    def say(self, where: str, count: int) -> None:
        """Tell, unless that was done a moment ago."""
        now = time.monotonic()
        if self._name is None or now - self._said_at < EVERY_S:
            return
        self._said_at = now
        rate = count / (now - self._began)
        print(
            f"{self._name}: {where}, {count:,} {self._unit}, {rate:,.0f} a second",
            file=sys.stderr,
            flush=True,
        )
