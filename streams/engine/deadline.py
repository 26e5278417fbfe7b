"""Deadlines on what we ask of the broker's client, which may swallow a cancellation and wait for
ever.

Each exchange runs as a task of its own; when its time is up the task is cancelled and left
behind, whether it ends or not, and the caller goes on. So whoever asked closes the client next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from schemas.errors import Unavailable

T = TypeVar("T")

CLOSE_WITHIN_S: Final = 0.5
"""How long a client has to close. What it can't do by then, because the broker does not answer,
nobody needs: and a stop that closes four of them one after the other still ends within 5 s."""

_LEFT: Final[set[asyncio.Task[Any]]] = set()
"""Tasks left behind; held so that they are not collected while they end."""


async def answered(
    exchange: Coroutine[Any, Any, T], within_s: float, unless: asyncio.Future[Any] | None = None
) -> T:
    """Return what the exchange returns, or raise what it raises.

    Unavailable when it takes longer, or when `unless` is done first.
    """
    task = asyncio.ensure_future(exchange)
    watched = (task,) if unless is None else (task, unless)
    try:
        await asyncio.wait(watched, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        leave(task)
        raise
    if task.done():
        return task.result()
    leave(task)
    if unless is not None and unless.done():
        raise Unavailable("the connection to the broker was lost")
    raise Unavailable(f"the broker did not answer within {within_s:g} s")


async def ended(closing: Coroutine[Any, Any, Any], within_s: float) -> bool:
    """Have something close; False when it did not within its time. Its errors don't matter."""
    task = asyncio.ensure_future(closing)
    try:
        await asyncio.wait((task,), timeout=within_s)
    finally:
        leave(task)
    return task.done()


def hang_up(client: Any) -> None:
    """End all connections of a client that was closed, also one that is being made just now, to a
    broker that was silent: the client would forget it, open.
    """
    for connection in client._conns.values():  # noqa: SLF001
        connection.close()
    client._conns = _Late()  # noqa: SLF001


class _Late(dict[Any, Any]):
    """Connections of a client that was closed."""

    def __setitem__(self, key: Any, connection: Any) -> None:
        super().__setitem__(key, connection)
        connection.close()


def leave(task: asyncio.Task[Any]) -> None:
    """Cancel a task and look no more at what becomes of it."""
    if not task.done():
        task.cancel()
        _LEFT.add(task)
        task.add_done_callback(_LEFT.discard)
    task.add_done_callback(seen)


def seen(future: asyncio.Future[Any]) -> None:
    """Look at a failure that nobody awaits any more, so that it is not reported as overlooked."""
    if not future.cancelled():
        future.exception()
