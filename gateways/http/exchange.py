"""One request and its answer.

It is answered exactly once, at any later time, in any order with respect to others; the connection
puts the answers in order. A client that has gone does not matter: answering is then without effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateways.http.responses import CLOSE, JSON, KEEP_ALIVE, render
from gateways.problems import MEDIA_TYPE, Down, Refused, header_lines, problem

if TYPE_CHECKING:
    from gateways.auth import Principal
    from gateways.http.connection import Connection
    from gateways.http.routing import Route
    from gateways.quota import Bucket

_encode = msgspec.json.Encoder().encode


class Exchange:
    """What was asked, by whom, and (once answered) the bytes to send."""

    __slots__ = (
        "body",
        "bucket",
        "connection",
        "headers",
        "last",
        "limit_lines",
        "method",
        "old_keep_alive",
        "params",
        "path",
        "peer",
        "principal",
        "query",
        "raw_headers",
        "received_at",
        "received_at_us",
        "request_id",
        "response",
        "route",
    )

    def __init__(
        self,
        connection: Connection,
        method: str,
        target: tuple[str, str],
        raw_headers: list[tuple[bytes, bytes]],
        headers: dict[bytes, bytes],
    ) -> None:
        self.connection = connection
        self.method = method
        self.path, self.query = target
        self.raw_headers = raw_headers
        self.headers = headers
        self.route: Route
        self.params: tuple[str, ...] = ()
        self.body = b""
        self.request_id = ""
        self.peer = connection.peer
        self.principal: Principal | None = None
        self.bucket: Bucket | None = None
        self.limit_lines = b""
        self.received_at = 0.0
        self.received_at_us = 0
        self.response: bytes | None = None
        self.last = False
        self.old_keep_alive = False

    @property
    def answered(self) -> bool:
        """Tell whether the answer was given."""
        return self.response is not None

    @property
    def tenant(self) -> str:
        """Whose request this is; only on routes with a scope."""
        assert self.principal is not None, "the route asks for no scope, so nobody is known"
        return self.principal.tenant

    def answer(
        self, status: int, body: bytes, lines: bytes = b"", media_type: bytes = JSON
    ) -> None:
        """Give the answer; `lines` are further header lines, each ended by CRLF."""
        assert self.response is None, f"{self.request_id} was answered before"
        server = self.connection.server
        if server.draining:
            self.connection.end_with(self)
        if self.last:
            lines += CLOSE
        elif self.old_keep_alive:
            lines += KEEP_ALIVE
        self.response = render(
            status,
            media_type,
            body,
            self.request_id,
            lines + self.limit_lines + server.date_line,
            without_body=self.method == "HEAD",
        )
        server.answered(self, status)
        self.connection.flush()

    def refuse(self, error: Refused | Down) -> None:
        """Answer with a problem."""
        body = problem(error, self.request_id)
        self.answer(body.status, _encode(body), header_lines(error), MEDIA_TYPE)
