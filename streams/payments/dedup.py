"""Deduplication: what a use of an idempotency key is. Pure.

Each use of a key is new, a repeat (same body: answer again, change nothing) or a conflict (other
body: never executed). Outcomes are kept in time generations as long as the horizon; a key is
looked for in the current and the previous one, so it is remembered for at least the horizon and at
most twice that, and a generation can be dropped whole.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

HORIZON_US: Final = 7 * 86_400 * 1_000_000
"""How long a key is remembered at least; also the length of a generation."""


class Use(Enum):
    """What a request is to the key that it carries."""

    NEW = "new"
    REPEAT = "repeat"
    CONFLICT = "conflict"

    # Members are one of each: their identity will do, and costs no call.
    __hash__ = object.__hash__


def judge(first_body_hash: str | None, body_hash: str) -> Use:
    """Compare with the first use's body hash; None where there was no first use."""
    if first_body_hash is None:
        return Use.NEW
    return Use.REPEAT if first_body_hash == body_hash else Use.CONFLICT


def generation(at_us: int) -> int:
    """Return the generation that log time belongs to."""
    return at_us // HORIZON_US


def keys(identity: str, at_us: int) -> tuple[bytes, bytes]:
    """Return the state keys to look under: the current generation's, then the previous one's."""
    now = generation(at_us)
    return key(identity, now), key(identity, now - 1)


def key(identity: str, in_generation: int) -> bytes:
    """Build a state key; its prefix is the generation, so that one is a contiguous range."""
    return in_generation.to_bytes(4, "big", signed=True) + identity.encode()
