"""One client's connection: parse requests as they arrive, answer them in their order.

Bounds: head, target and body sizes, requests in progress, the time a request may take to arrive and
an answer to be read. What breaks a bound or the protocol is answered once, after what came before
it, and nothing that follows it is heard. Losing the client loses no event: exchanges go on without
it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httptools

from gateways.http import head
from gateways.http.exchange import Exchange
from gateways.http.responses import CONTINUE
from gateways.http.routing import NOT_FOUND
from gateways.problems import INTERNAL, Down, Refused

if TYPE_CHECKING:
    from gateways.http.server import Server

_OVERHEAD_MAX: Final = 8
"""Chunked framing may cost this many times the body that a route takes, no more."""


class Connection(asyncio.Protocol):
    """The protocol of one connection; the parser calls the `on_` methods."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.peer = ""
        self._limits = server.limits
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._pending: deque[Exchange] = deque()
        self._target = b""
        self._raw_headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._message_bytes = 0
        self._exchange: Exchange | None = None
        self._in_message = False
        self._deaf = False
        self._continue_due = False
        self._input_ended = False
        self._reading_since: float | None = None
        self._idle_since = server.now()
        self._stalled_since: float | None = None
        self._linger_until: float | None = None

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = address[0] if isinstance(address, tuple) else ""
        self.server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's name)
        self._transport = None
        self._deaf = True
        self._pending.clear()
        self.server.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._message_bytes += len(data)
        try:
            self._feed(data)
            self._check_size()
        except httptools.HttpParserError as error:
            if not self._deaf:  # what follows a last request is not heard, whatever it is
                self._break(self._reason(error))
        except Refused as error:
            self._break(error)
        if self._in_message and self._reading_since is None:
            self._reading_since = self.server.now()
        if len(self._pending) >= self._limits.pipelined_max and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Keep the sending side open while answers are due."""
        self._input_ended = True
        return bool(self._pending)

    def pause_writing(self) -> None:
        self._stalled_since = self.server.now()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._stalled_since = None
        self._resume_reading()

    # The parser's side.

    def on_message_begin(self) -> None:
        self._target = b""
        self._raw_headers = []
        self._body = []
        self._body_bytes = 0
        self._in_message = True

    def on_url(self, target: bytes) -> None:
        self._target += target
        if len(self._target) > self._limits.target_bytes_max:
            raise Refused(
                "target_too_long", f"At most {self._limits.target_bytes_max} bytes are taken."
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is not None:
            return  # a trailer: read and left out
        self._raw_headers.append((name, value))
        if len(self._raw_headers) > self._limits.headers_max:
            raise _head_too_large()

    def on_headers_complete(self) -> None:
        if sum(len(n) + len(v) for n, v in self._raw_headers) > self._limits.head_bytes_max:
            raise _head_too_large()
        headers = head.collect(self._raw_headers)
        version = self._parser.get_http_version()
        head.check(version, headers, upgrade=self._parser.should_upgrade())
        method = self._parser.get_method().decode("ascii")
        exchange = Exchange(
            self, method, head.split_target(self._target), self._raw_headers, headers
        )
        exchange.route, exchange.params = self.server.router.find(method, exchange.path)
        length = int(headers.get(b"content-length", b"0"))
        if length > exchange.route.body_bytes_max:
            raise _body_too_large(exchange.route.body_bytes_max)
        keep_alive = self._parser.should_keep_alive()
        exchange.last = not keep_alive
        exchange.old_keep_alive = keep_alive and version == "1.0"
        self._exchange = exchange
        if b"expect" in headers and version == "1.1":
            self._continue_due = True
            self.flush()

    def on_body(self, chunk: bytes) -> None:
        assert self._exchange is not None
        self._body.append(chunk)
        self._body_bytes += len(chunk)
        if self._body_bytes > self._exchange.route.body_bytes_max:
            raise _body_too_large(self._exchange.route.body_bytes_max)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._exchange = None
        self._in_message = False
        self._message_bytes = 0
        self._reading_since = None
        self._continue_due = False
        exchange.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._pending.append(exchange)
        if exchange.last:
            self._deaf = True
        self.server.received(exchange)

    # The server's side.

    def flush(self) -> None:
        """Write every answer whose turn it is."""
        if self._transport is None:
            return
        while self._pending and self._pending[0].response is not None:
            exchange = self._pending.popleft()
            assert exchange.response is not None
            self._transport.write(exchange.response)
            if exchange.last:
                self._finish()
                return
        if self._pending:
            return
        if self._continue_due:
            self._continue_due = False
            self._transport.write(CONTINUE)
        self._idle_since = self.server.now()
        if self._input_ended:
            self._transport.close()
        else:
            self._resume_reading()

    def tick(self, now: float) -> None:
        """Enforce the times; called a few times a second."""
        if self._transport is None:
            return
        limits = self._limits
        if self._linger_until is not None:
            if now > self._linger_until:
                self._transport.abort()
        elif self._stalled_since is not None:
            if now - self._stalled_since > limits.write_s:
                self._transport.abort()
        elif self._reading_since is not None:
            if now - self._reading_since > limits.read_s and not self._pending:
                detail = f"A request must arrive within {limits.read_s:g} s."
                self._break(Refused("request_timeout", detail))
        elif not self._pending and now - self._idle_since > limits.idle_s:
            self._transport.close()

    def close_if_idle(self) -> None:
        """End the connection unless a request is in progress on it."""
        if self._transport is not None and not self._pending and not self._in_message:
            self._transport.close()

    def end_with(self, exchange: Exchange) -> None:
        """Make this answer the last one, unless a later request is already in progress."""
        if self._pending and self._pending[-1] is exchange and not self._in_message:
            exchange.last = True
            self._deaf = True

    def turn_away(self, error: Down) -> None:
        """Answer a client that there is no room for, and end."""
        self._break(error)

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    def _feed(self, data: bytes) -> None:
        """Feed the parser; a request that offers an upgrade is taken as one that does not."""
        while data and not self._deaf:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as offered:
                data = data[offered.args[0] :]
            else:
                return

    def _check_size(self) -> None:
        """Bound what an unfinished message has sent so far: head, chunk sizes, trailers and all."""
        if not self._in_message or self._deaf:
            return
        if self._exchange is None:
            if self._message_bytes > self._limits.head_bytes_max:
                raise _head_too_large()
        elif self._message_bytes > _OVERHEAD_MAX * self._exchange.route.body_bytes_max:
            raise _body_too_large(self._exchange.route.body_bytes_max)

    def _reason(self, error: httptools.HttpParserError) -> Refused:
        if not isinstance(error, httptools.HttpParserCallbackError):
            return Refused("request_malformed", f"{error}.")
        if isinstance(error.__context__, Refused):
            return error.__context__
        self.server.failed(error.__context__ or error)
        return INTERNAL

    def _break(self, error: Refused | Down) -> None:
        """Answer what can't be taken, in its turn, and hear nothing more."""
        self._deaf = True
        self._in_message = False
        self._reading_since = None
        exchange = self._exchange or Exchange(self, "?", ("", ""), self._raw_headers, {})
        if self._exchange is None:
            exchange.route = NOT_FOUND
        self._exchange = None
        exchange.last = True
        self._pending.append(exchange)
        self.server.broken(exchange, error)

    def _finish(self) -> None:
        """End after the last answer: say so, then wait for the client to have read it."""
        assert self._transport is not None
        self._deaf = True
        self._pending.clear()
        self._linger_until = self.server.now() + self._limits.linger_s
        self._resume_reading()
        if self._input_ended or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._transport.write_eof()

    def _resume_reading(self) -> None:
        if self._transport is None or self._stalled_since is not None:
            return
        if len(self._pending) < self._limits.pipelined_max and not self._transport.is_closing():
            self._transport.resume_reading()


def _head_too_large() -> Refused:
    return Refused("headers_too_large", "Fewer or shorter headers are taken.")


def _body_too_large(limit: int) -> Refused:
    return Refused("body_too_large", f"At most {limit} bytes are taken here.")
