"""CPU seconds by role, from /proc: restarted processes are added up, servers with their children.

Only reads. A process that ends between two looks loses what it used since the last one, so the
sampler looks often, and right before every kill.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadtest.stack import Process

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_SERVERS: Final = frozenset({"kafka", "postgres"})


class CpuMeter:
    """Adds up what the processes of a stack have used since each was first seen."""

    def __init__(self) -> None:
        self._first: dict[int, float] = {}
        self._last: dict[int, tuple[str, float]] = {}

    def look(self, processes: Iterable[Process]) -> None:
        """Note what each process has used by now. One that started meanwhile counts from zero."""
        for process in processes:
            used = tree_s(process.pid) if process.role in _SERVERS else process_s(process.pid)
            if used is not None:
                self._last[process.pid] = (process.role, used)

    def begin(self, processes: Iterable[Process]) -> None:
        """Count from here on."""
        self.look(processes)
        self._first = {pid: used for pid, (_, used) in self._last.items()}

    def by_role(self) -> dict[str, float]:
        """Return CPU seconds by role."""
        total: defaultdict[str, float] = defaultdict(float)
        for pid, (role, used) in self._last.items():
            total[role] += used - self._first.get(pid, 0.0)
        return dict(total)


def process_s(pid: int) -> float | None:
    """Return the CPU seconds of one process; None if it is gone."""
    fields = _stat(pid)
    return None if fields is None else (int(fields[11]) + int(fields[12])) / _TICKS


def tree_s(pid: int) -> float | None:
    """Return the CPU seconds of a process and all that it started, ended ones too."""
    fields = _stat(pid)
    if fields is None:
        return None
    own = sum(int(field) for field in fields[11:15]) / _TICKS
    return own + sum(tree_s(child) or 0.0 for child in _children(pid))


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in text.split()]
