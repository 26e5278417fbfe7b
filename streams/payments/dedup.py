"""Deduplication: what a use of an idempotency key is. Pure.

Each use of a key is new, a repeat (same body: answer again, change nothing) or a conflict (other
body: never executed). What is remembered of a key is kept in generations of the task's horizon (see
`streams.engine.generations`): while what it began is under way, then for at least the horizon.
"""

from __future__ import annotations

from enum import Enum


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
