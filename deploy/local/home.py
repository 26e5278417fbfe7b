"""Where one stack keeps its things: every path below its folder, and the project's own folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one stack. Two stacks with different homes know nothing of each other."""

    root: Path

    @property
    def stack_file(self) -> Path:
        """What clients attach by; exists while the stack is up."""
        return self.root / "stack.json"

    @property
    def record(self) -> Path:
        """The supervisor's own: its state, and every process it started."""
        return self.root / "run" / "supervisor.json"

    @property
    def lock(self) -> Path:
        """Held by the one supervisor of this home while it lives."""
        return self.root / "run" / "lock"

    def hold(self, name: str) -> Path:
        """While this file exists the supervisor does not start the process of that name again."""
        return self.root / "run" / "hold" / name

    def log(self, name: str) -> Path:
        """A process's log."""
        return self.root / "logs" / f"{name}.log"

    def state(self, worker: str) -> Path:
        """A stream worker's local state; it can be lost."""
        return self.root / "state" / worker

    @property
    def kafka(self) -> Path:
        """The broker's folder."""
        return self.root / "kafka"

    @property
    def postgres(self) -> Path:
        """The database server's folder."""
        return self.root / "postgres"

    @property
    def warehouse(self) -> Path:
        """The lake's tables."""
        return self.root / "lake"

    @property
    def credentials(self) -> Path:
        """Generated passwords and keys."""
        return self.root / "credentials.json"

    @property
    def api_keys(self) -> Path:
        """The gateways' hashed keys."""
        return self.root / "api_keys.json"

    @property
    def webhook_sources(self) -> Path:
        """The gateways' webhook sources."""
        return self.root / "webhook_sources.json"
