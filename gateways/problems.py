"""What can go wrong, for the client: RFC 9457 problems. Pure.

`KINDS` is the table of every problem: its stable code, its status, its title. A handler raises
Refused (the caller changes the request) or Down (the caller retries later) with one of these codes;
nothing else decides a status.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from schemas.errors import Rejected, Unavailable

TYPE_PREFIX: Final = "urn:headrace:problem:"
MEDIA_TYPE: Final = b"application/problem+json"
RETRY_AFTER_S: Final = 1


class FieldError(msgspec.Struct, frozen=True):
    """One rule that one field breaks; `pointer` is an RFC 6901 JSON pointer into the body."""

    pointer: str
    code: str
    detail: str


class Problem(msgspec.Struct, frozen=True):
    """The body of an error answer (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldError] = []


@dataclass(frozen=True, slots=True)
class Kind:
    """A problem's status and title, the same for every occurrence."""

    status: int
    title: str


KINDS: Final[dict[str, Kind]] = {
    "request_malformed": Kind(400, "The request is not well-formed HTTP"),
    "json_malformed": Kind(400, "The body is not well-formed JSON"),
    "query_invalid": Kind(400, "A query parameter is not valid"),
    "idempotency_key_missing": Kind(400, "The Idempotency-Key header is missing"),
    "idempotency_key_invalid": Kind(400, "The Idempotency-Key header is not valid"),
    "unauthenticated": Kind(401, "No valid API key was given"),
    "webhook_unverified": Kind(401, "The delivery does not verify"),
    "scope_missing": Kind(403, "The API key may not do this"),
    "not_found": Kind(404, "There is no such resource"),
    "method_not_allowed": Kind(405, "The resource does not take this method"),
    "request_timeout": Kind(408, "The request took too long to arrive"),
    "length_required": Kind(411, "The request needs a body of known length"),
    "body_too_large": Kind(413, "The body is too large"),
    "target_too_long": Kind(414, "The request target is too long"),
    "media_type_unsupported": Kind(415, "The body's media type is not supported"),
    "expectation_failed": Kind(417, "The Expect header asks for something unknown"),
    "validation_failed": Kind(422, "The request breaks a rule"),
    "account_rejected": Kind(422, "The account was not opened"),
    "operation_refused": Kind(422, "The operation was refused; nothing was changed"),
    "transfer_rejected": Kind(422, "The transfer was not posted"),
    "idempotency_key_reused": Kind(422, "The idempotency key was used with another request"),
    "headers_too_large": Kind(431, "The request's headers are too large"),
    "rate_limited": Kind(429, "The API key sends too many requests"),
    "internal_error": Kind(500, "Something failed on our side"),
    "overloaded": Kind(503, "Too many requests are in progress"),
    "broker_unavailable": Kind(503, "The event log does not answer"),
    "views_unavailable": Kind(503, "The read model does not answer"),
    "not_ready": Kind(503, "This gateway is not ready"),
    "http_version_unsupported": Kind(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here"),
}


class Refused(Rejected):
    """The caller must change the request; `headers` are header lines that the answer carries."""

    def __init__(
        self, code: str, detail: str, *errors: FieldError, headers: bytes = b"", pointer: str = ""
    ) -> None:
        assert code in KINDS, code
        super().__init__(code, detail, pointer)
        self.errors = errors
        self.headers = headers


class Down(Unavailable):
    """The caller retries later, with the same idempotency key."""

    def __init__(self, code: str, detail: str) -> None:
        assert KINDS[code].status == 503
        super().__init__(detail)
        self.code = code
        self.detail = detail


def invalid(pointer: str, code: str, detail: str) -> Refused:
    """Refuse a body because of one field."""
    return Refused("validation_failed", f"{pointer}: {detail}", FieldError(pointer, code, detail))


def bad_query(parameter: str, code: str, detail: str) -> Refused:
    """Refuse a query parameter; the query counts as an object, so its pointer is `/parameter`."""
    error = FieldError(f"/{escaped(parameter)}", code, detail)
    return Refused("query_invalid", f"{parameter}: {detail}", error)


def escaped(name: str) -> str:
    """Return a name as a part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def problem(error: Refused | Down, request_id: str) -> Problem:
    """Describe an error to the client."""
    kind = KINDS[error.code]
    return Problem(
        type=TYPE_PREFIX + error.code,
        title=kind.title,
        status=kind.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        errors=list(error.errors) if isinstance(error, Refused) else [],
    )


def header_lines(error: Refused | Down) -> bytes:
    """Return the header lines that the problem's answer carries."""
    if isinstance(error, Refused):
        return error.headers
    return b"Retry-After: %d\r\n" % RETRY_AFTER_S


INTERNAL: Final = Refused(
    "internal_error",
    "The failure is logged under this request's id. Retry with the same Idempotency-Key.",
)
