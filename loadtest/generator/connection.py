"""One HTTP/1.1 connection that stays open and has at most one request under way.

Talks to the gateway. Invariant: every request handed to `send` ends in exactly one call of `done`,
by its answer, by the loss of the connection or by `expire`. It never sends anything twice: whether
to try again is the caller's decision.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import httptools

from loadtest.generator.answers import RESET, TIMED_OUT, Answer, parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable


class Connection(asyncio.Protocol):
    """`done(connection, payload, answer)` comes once per request, `gone(connection)` at the end."""

    __slots__ = (
        "_body", "_done", "_gone", "_parser", "_replayed", "_retry_after_s", "_transport",
        "deadline", "payload",
    )  # fmt: skip

    def __init__(
        self, done: Callable[[Connection, Any, Answer], None], gone: Callable[[Connection], None]
    ) -> None:
        self._done = done
        self._gone = gone
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.payload: Any = None
        self.deadline = 0.0
        self._body = b""
        self._retry_after_s: float | None = None
        self._replayed = False

    @property
    def usable(self) -> bool:
        """Tell whether another request may be sent now."""
        open_still = self._transport is not None and not self._transport.is_closing()
        return open_still and self.payload is None

    def send(self, data: bytes, payload: Any, deadline: float) -> None:
        """Write a request; `payload` (not None) comes back with `done`."""
        assert self._transport is not None
        assert self.payload is None, "one request at a time"
        self.payload = payload
        self.deadline = deadline
        self._transport.write(data)

    def expire(self) -> None:
        """Give the request up, and close so that a late answer can't be taken for another's."""
        self.close()
        self._finish(Answer(0, error=TIMED_OUT))

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # uvloop's transports are no subclasses of asyncio's, they only behave like them.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Called by the loop: whatever was under way has no answer."""
        self._transport = None
        self._finish(Answer(0, error=RESET))
        self._gone(self)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._body = b""
        self._retry_after_s = None
        self._replayed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        match name.lower():
            case b"retry-after":
                self._retry_after_s = parse_retry_after(value.decode("latin-1"))
            case b"idempotent-replayed":
                self._replayed = value == b"true"

    def on_body(self, part: bytes) -> None:
        """Called by the parser."""
        self._body += part

    def on_message_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.close()
        self._finish(Answer(status, self._body, self._retry_after_s, self._replayed))

    def _finish(self, answer: Answer) -> None:
        payload, self.payload = self.payload, None
        if payload is not None:
            self._done(self, payload, answer)
