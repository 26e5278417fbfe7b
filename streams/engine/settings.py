"""What the engine is configured with: one frozen value, every time in milliseconds unless its
name says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from streams.engine.store import StoreLimits

SESSION_MIN_MS: Final = 6_000
"""The shortest session that a broker takes by its default settings."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings of one worker process. `worker` is its static group membership, so it is unique
    and lasting.
    """

    kafka: str
    worker: str
    state_dir: Path
    session_timeout_ms: int = 10_000
    transaction_timeout_ms: int = 15_000
    commit_interval_ms: int = 100
    batch_max: int = 2_000
    crash_point: str = ""
    start_within_s: float = 60.0
    stop_within_s: float = 2.0
    cache_entries: int = 20_000
    limits: StoreLimits = field(default_factory=StoreLimits)

    def __post_init__(self) -> None:
        assert self.batch_max >= 1, "a batch has room for a record"
        assert self.worker, "a worker has a name"

    @property
    def bootstrap(self) -> list[str]:
        """The brokers to start from."""
        return self.kafka.split(",")

    @property
    def group_session_ms(self) -> int:
        """What the group is told: a tenth less where a broker takes it, so that a death is noticed
        within the session time-out, whenever the last beat of the one and the next of another are.
        """
        return max(min(self.session_timeout_ms, SESSION_MIN_MS), self.session_timeout_ms * 9 // 10)

    @property
    def heartbeat_ms(self) -> int:
        """How often a member shows itself to its group, and hears of a change in it."""
        return max(100, min(3_000, self.session_timeout_ms // 40))

    @property
    def broker_within_s(self) -> float:
        """Deadline of one exchange with the broker outside a transaction."""
        return max(2.0, self.session_timeout_ms / 1000)

    @property
    def request_timeout_ms(self) -> int:
        """The client's deadline of one request: before ours, as it closes then what it opened."""
        return int(self.broker_within_s * 800)

    @property
    def transaction_within_s(self) -> float:
        """Deadline of a whole transaction: before the broker gives it up, so that we know first."""
        return self.transaction_timeout_ms * 0.8 / 1000
