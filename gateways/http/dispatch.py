"""The outermost loop of a request: whatever a handler raises becomes one answer.

Refused and Down become their problem; anything else is ours, is logged under the request's id and
answered 500. A gate runs before each handler; handlers that wait run as tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateways.http.exchange import Exchange
from gateways.http.routing import Handler
from gateways.problems import INTERNAL, Down, Refused
from schemas import logs
from schemas.errors import Rejected, Unavailable

Gate = Callable[[Exchange], None]
AsyncHandler = Callable[[Exchange], Coroutine[Any, Any, None]]


class Dispatch:
    """Runs gate and handler of each request."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logs.get()

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, now or later; never raises."""
        try:
            self._gate(exchange)
            exchange.route.handle(exchange)
        except Exception as error:  # noqa: BLE001 (the outermost loop of a request)
            self._answer(exchange, error)

    def later(self, handler: AsyncHandler) -> Handler:
        """Make a handler of one that waits: it runs as a task of its own."""

        def handle(exchange: Exchange) -> None:
            task = asyncio.get_running_loop().create_task(self._run(handler, exchange))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return handle

    def failed(self, error: BaseException) -> None:
        """Log a failure that belongs to no request."""
        self._log.error("failed", exc_info=error)

    async def _run(self, handler: AsyncHandler, exchange: Exchange) -> None:
        try:
            await handler(exchange)
        except Exception as error:  # noqa: BLE001 (the outermost loop of a request that waits)
            self._answer(exchange, error)

    def _answer(self, exchange: Exchange, error: Exception) -> None:
        known = as_problem(error)
        if known is INTERNAL:
            self._log.error(
                "request failed",
                request_id=exchange.request_id,
                route=exchange.route.name,
                exc_info=error,
            )
        if not exchange.answered:
            exchange.refuse(known)


def as_problem(error: Exception) -> Refused | Down:
    """Return the problem that an error is to the client."""
    match error:
        case Refused() | Down():
            return error
        case Rejected():
            detail = f"{error.pointer}: {error.detail}" if error.pointer else error.detail
            return Refused("validation_failed", detail)
        case Unavailable():
            return Down("broker_unavailable", str(error))
        case _:
            return INTERNAL
