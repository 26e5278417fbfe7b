"""What the sinks (views, lake) share: sessions with bounded back-off, a stop on signals.

A sink runs in sessions. A session takes over its partitions, reads from what its tables say, and
ends by an error that another session may cure (the broker or the database is away, another owner
came); anything else ends the process. It never goes on with state that an error made uncertain.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from schemas import logs
from schemas.errors import Fenced, Unavailable
from schemas.metrics import READY

BACKOFF_S_MIN: Final = 0.2
BACKOFF_S_MAX: Final = 5.0
HEALTHY_S: Final = 10.0
"""A session that lived this long starts the back-off anew."""


def stop_on_signals() -> asyncio.Event:
    """Return the event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def ended(closing: Coroutine[Any, Any, None], within_s: float) -> None:
    """Have a client close within a bound.

    One in trouble may fail or hang as it closes, with the cancellation of its own tasks too; it has
    been given up by then and must not take the process along.
    """
    task = asyncio.ensure_future(closing)
    await asyncio.wait([task], timeout=within_s)
    if not task.done():
        task.cancel()
    elif not task.cancelled() and task.exception() is not None:
        logs.get().warning("client left behind", reason=repr(task.exception()))


async def run_sessions(session: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Run one session after another until `stop`; wait between them, ever longer while they fail at
    once.
    """
    backoff_s = BACKOFF_S_MIN
    clock = asyncio.get_running_loop().time
    while not stop.is_set():
        began = clock()
        try:
            await session()
        except (Unavailable, Fenced) as error:
            READY.set(0)
            if clock() - began > HEALTHY_S:
                backoff_s = BACKOFF_S_MIN
            logs.get().warning(
                "session ended", why=type(error).__name__, error=str(error), again_in_s=backoff_s
            )
            await stopped_within(stop, backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
    READY.set(0)


async def stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for `stop`, at most so long; tell whether it came."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True
