"""Whether this worker serves: every task has joined its group and runs what the group gave it.

Shown as the `headrace_ready` gauge, set at each change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from schemas.metrics import READY


@dataclass(slots=True)
class Readiness:
    """Which tasks serve."""

    serving: dict[str, bool] = field(default_factory=dict)

    def expect(self, tasks: Iterable[str]) -> None:
        """Name the tasks that must serve before the worker is ready."""
        self.serving = dict.fromkeys(tasks, False)
        READY.set(0)

    def tell(self, task: str, *, serving: bool) -> None:
        """Say whether a task serves now."""
        self.serving[task] = serving
        READY.set(1 if all(self.serving.values()) else 0)
