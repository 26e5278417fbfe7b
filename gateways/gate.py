"""What every request passes before its handler: who calls, may they, how often; is there a body."""

from __future__ import annotations

from typing import Final

from gateways.auth import Keyring, Principal, require
from gateways.http.exchange import Exchange
from gateways.problems import Refused
from gateways.quota import Quotas

KEY_BYTES_MAX: Final = 255


class Gate:
    """Checks a request against what its route declares."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._quotas = Quotas()

    def __call__(self, exchange: Exchange) -> None:
        """Raise Refused, or let the request through with its principal set."""
        route, headers = exchange.route, exchange.headers
        if route.scope is not None:
            exchange.principal = self._keyring.identify(headers.get(b"authorization"))
            require(exchange.principal, route.scope)
            self._limit(exchange, exchange.principal)
        if not route.takes_body or (route.body_optional and not exchange.body):
            return
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            raise Refused("length_required", "Send Content-Length or Transfer-Encoding: chunked.")
        if route.media_type is not None:
            given = headers.get(b"content-type", b"none").partition(b";")[0].strip().lower()
            if given != route.media_type:
                wanted = route.media_type.decode()
                detail = f"The body must be {wanted}, not {given.decode('latin-1')}."
                raise Refused("media_type_unsupported", detail)

    def _limit(self, exchange: Exchange, caller: Principal) -> None:
        if caller.quota is None:
            return
        bucket = self._quotas.of(caller.key_id, caller.quota, exchange.received_at)
        exchange.limit_lines = bucket.take(exchange.received_at)
        exchange.bucket = bucket


def idempotency_key(exchange: Exchange) -> str:
    """Return the request's key; Refused (400) when it is missing or can't be one."""
    given = exchange.headers.get(b"idempotency-key")
    if given is None:
        detail = (
            "Send an Idempotency-Key: the same on every retry of one request, new for a new one."
        )
        raise Refused("idempotency_key_missing", detail)
    return check_key(given.decode("latin-1"))


def check_key(key: str) -> str:
    """Return the key; Refused when it can't be one."""
    if 1 <= len(key) <= KEY_BYTES_MAX and key.isascii() and key.isprintable():
        return key
    detail = f"An idempotency key is 1 to {KEY_BYTES_MAX} printable ASCII characters."
    raise Refused("idempotency_key_invalid", detail)
