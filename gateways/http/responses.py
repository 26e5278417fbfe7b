"""The bytes of an answer. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

JSON: Final = b"application/json"

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE: Final = b"Connection: close\r\n"
KEEP_ALIVE: Final = b"Connection: keep-alive\r\n"


def render(
    status: int,
    media_type: bytes,
    body: bytes,
    request_id: str,
    lines: bytes,
    *,
    without_body: bool = False,
) -> bytes:
    """Return head and body; `lines` are further header lines, each ended by CRLF.

    `without_body` answers a HEAD: the length is that of the body that GET would have sent.
    """
    return b"%bContent-Type: %b\r\nContent-Length: %d\r\nRequest-Id: %b\r\n%b\r\n%b" % (
        _STATUS_LINES[status],
        media_type,
        len(body),
        request_id.encode(),
        lines,
        b"" if without_body else body,
    )
