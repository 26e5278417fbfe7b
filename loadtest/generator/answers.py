"""What an answer means, and whether and when to send the same request again. Pure.

A request is sent again, with the same idempotency key, after a lost connection, a time-out, 429
and 5xx, because none of these tells what happened. Everything else is final. Both the number of
attempts and the time they may take are bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

ATTEMPTS_MAX: Final = 40
RETRY_FOR_S: Final = 45.0
BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0
RETRY_AFTER_MAX_S: Final = 5.0

REFUSED: Final = "refused"
RESET: Final = "reset"
TIMED_OUT: Final = "timed_out"


@dataclass(frozen=True, slots=True)
class Answer:
    """How one attempt ended: a status (0 where none came, then `error` says why)."""

    status: int
    body: bytes = b""
    retry_after_s: float | None = None
    replayed: bool = False
    error: str = ""

    @property
    def label(self) -> str:
        """Return the class that errors are counted by."""
        return self.error or f"http_{self.status}"

    @property
    def ok(self) -> bool:
        """Tell whether the request was accepted."""
        return 200 <= self.status < 300

    @property
    def final(self) -> bool:
        """Tell whether sending it again could bring nothing new."""
        return self.status not in {0, 408, 429} and self.status < 500


def retry_in_s(answer: Answer, attempts: int, age_s: float, random: Random) -> float | None:
    """Return how long to wait before the next attempt; None where it is over.

    A server's Retry-After is honored (up to a bound); otherwise the wait doubles, with jitter.
    """
    if answer.final or attempts >= ATTEMPTS_MAX:
        return None
    backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(attempts - 1, 10))
    wait_s = backoff_s * random.uniform(0.5, 1.0)
    if answer.retry_after_s is not None:
        wait_s += min(answer.retry_after_s, RETRY_AFTER_MAX_S)
    return None if age_s + wait_s > RETRY_FOR_S else wait_s


def parse_retry_after(text: str) -> float | None:
    """Read Retry-After in its form of seconds; None for its other form, a date."""
    try:
        return max(0.0, float(text))
    except ValueError:
        return None
