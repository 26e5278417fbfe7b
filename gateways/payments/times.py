"""Times as clients write and read them: RFC 3339, microseconds since the epoch inside. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(at_us: int) -> str:
    """Show microseconds since the epoch as RFC 3339, in UTC."""
    second, us = divmod(at_us, 1_000_000)
    return f"{_second(second)}.{us:06d}Z"


def parse(text: str) -> int | None:
    """Read an RFC 3339 time; None when it is none, or has no zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return (moment - _EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=4_096)
def _second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")
