"""What is held on an account, as clients get it. Pure."""

from __future__ import annotations

import msgspec


class Hold(msgspec.Struct, frozen=True):
    """An amount set aside for a payment: `remaining` of it is still held, until `expires_at`.

    The rest was captured. `payment` is what it was placed for.
    """

    payment: str
    amount: int
    captured: int
    remaining: int
    currency: str
    placed_at: str
    expires_at: str | None


class HoldList(msgspec.Struct, frozen=True):
    """Newest first; `next_cursor` is null on the last page."""

    data: list[Hold]
    next_cursor: str | None
