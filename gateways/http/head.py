"""What a request's head must be, beyond what the parser checks (RFC 9110, 9112). Pure.

The parser refuses by itself: bad framing (Content-Length with Transfer-Encoding, two lengths, an
unknown coding), bare LF, folded lines, bad characters. Here: versions, Host, ambiguous repeats,
Expect, codings, upgrades, targets.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from gateways.problems import Refused

Headers = dict[bytes, bytes]

_SINGLE: Final = frozenset(
    {b"host", b"authorization", b"idempotency-key", b"content-type", b"traceparent", b"expect"}
)


def collect(raw: list[tuple[bytes, bytes]]) -> Headers:
    """Return the headers by lower-case name, values trimmed, repeats joined (RFC 9110, 5.3)."""
    headers: Headers = {}
    for name, value in raw:
        key = name.lower()
        before = headers.get(key)
        if before is None:
            headers[key] = value.rstrip(b" \t")
        elif key in _SINGLE:
            raise Refused("request_malformed", f"{name.decode('latin-1')} was given twice.")
        else:
            headers[key] = before + b", " + value.rstrip(b" \t")
    return headers


def check(version: str, headers: Headers, *, upgrade: bool) -> None:
    """Raise Refused when the head asks for something that is not spoken here."""
    if version not in {"1.1", "1.0"}:
        raise Refused("http_version_unsupported", f"HTTP/{version} is not spoken here.")
    if version == "1.1" and b"host" not in headers:
        raise Refused("request_malformed", "HTTP/1.1 needs a Host header.")
    if upgrade and (b"content-length" in headers or b"transfer-encoding" in headers):
        raise Refused("request_malformed", "A request with a body can't be upgraded here.")
    expect = headers.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        raise Refused("expectation_failed", "Only Expect: 100-continue is known.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refused("media_type_unsupported", "Bodies are taken without a Content-Encoding.")


def split_target(target: bytes) -> tuple[str, str]:
    """Return path and query of a request target, in origin or absolute form."""
    text = target.decode("ascii", "replace")
    if not text.startswith("/"):
        try:
            parts = urlsplit(text)
        except ValueError as error:
            raise Refused("request_malformed", "The request target is not a URL.") from error
        return parts.path or "/", parts.query
    path, _, query = text.partition("?")
    return path, query
