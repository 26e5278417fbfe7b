"""The listener: how many clients and requests at a time, how they end.

Past a bound the answer is 503 with Retry-After, at once. A drain stops listening, ends idle
connections, lets what is in progress be answered (each answer then ends its connection) and cuts
off the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Final, Protocol

from gateways import metrics
from gateways.http.connection import Connection
from gateways.http.exchange import Exchange
from gateways.http.limits import Limits
from gateways.http.routing import Router
from gateways.problems import Down, Refused

_CONNECTIONS_REFUSED: Final = Down("overloaded", "Too many connections are open. Retry later.")
_REQUESTS_REFUSED: Final = Down("overloaded", "Too many requests are in progress. Retry later.")


class Dispatcher(Protocol):
    """Handles every request; it never raises."""

    def handle(self, exchange: Exchange) -> None: ...

    def failed(self, error: BaseException) -> None: ...


class Server:
    """Serves one address. `new_request_id` names requests, uniquely over all gateways."""

    def __init__(
        self,
        router: Router,
        dispatcher: Dispatcher,
        new_request_id: Callable[[], str],
        limits: Limits | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.router = router
        self.limits = limits or Limits()
        self.now = now
        self.draining = False
        self.in_flight = 0
        self.date_line = b""
        self._dispatcher = dispatcher
        self._new_request_id = new_request_id
        self._connections: set[Connection] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._listener: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._set_date()

    @property
    def connections(self) -> int:
        """Clients connected now."""
        return len(self._connections)

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self), host, port, backlog=1024
        )
        self._ticker = loop.create_task(self._tick())
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    def stop_listening(self) -> None:
        """Take no new client; from now on each answer ends its connection."""
        self.draining = True
        if self._listener is not None:
            self._listener.close()

    async def drain(self, within_s: float) -> None:
        """Stop listening, let requests end, then cut off what is left."""
        self.stop_listening()
        for connection in tuple(self._connections):
            connection.close_if_idle()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_closed.wait(), within_s)
        for connection in tuple(self._connections):
            connection.abort()
        if self._ticker is not None:
            self._ticker.cancel()

    # What connections call.

    def opened(self, connection: Connection) -> None:
        """Count a client in; one too many is told so."""
        self._connections.add(connection)
        self._all_closed.clear()
        if len(self._connections) > self.limits.connections_max:
            connection.turn_away(_CONNECTIONS_REFUSED)

    def closed(self, connection: Connection) -> None:
        """Count a client out."""
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()

    def received(self, exchange: Exchange) -> None:
        """Take a whole request."""
        self._admit(exchange)
        if self.in_flight > self.limits.in_flight_max and not exchange.route.always:
            exchange.refuse(_REQUESTS_REFUSED)
        else:
            self._dispatcher.handle(exchange)

    def broken(self, exchange: Exchange, error: Refused | Down) -> None:
        """Answer for a request that can't be taken."""
        self._admit(exchange)
        exchange.refuse(error)

    def answered(self, exchange: Exchange, status: int) -> None:
        """Count a request out."""
        self.in_flight -= 1
        metrics.observe(
            exchange.route.name, exchange.method, status, self.now() - exchange.received_at
        )

    def failed(self, error: BaseException) -> None:
        """Hand on a failure of our own."""
        self._dispatcher.failed(error)

    def _admit(self, exchange: Exchange) -> None:
        exchange.received_at = self.now()
        exchange.received_at_us = time.time_ns() // 1000
        exchange.request_id = self._new_request_id()
        self.in_flight += 1

    def _set_date(self) -> None:
        self.date_line = f"Date: {formatdate(usegmt=True)}\r\n".encode()

    async def _tick(self) -> None:
        while True:
            self._set_date()
            now = self.now()
            for connection in tuple(self._connections):
                connection.tick(now)
            await asyncio.sleep(self.limits.tick_s)
