"""How a request looks on the wire: HTTP/1.1 bytes, built before the clock starts. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.generator.plan import Account, Order
    from loadtest.generator.webhooks import Delivery


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to send to."""

    host: str
    port: int
    api_key: str


def request(
    target: Target, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> bytes:
    """Return the bytes of one request on a connection that stays open."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {target.host}:{target.port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def account(target: Target, planned: Account) -> bytes:
    """Return the request that opens a planned account and waits for it."""
    body = {"currency": planned.currency, "kind": planned.kind, "name": f"load {planned.number}"}
    return _post(target, "/v1/accounts", planned.key, body)


def payment(target: Target, order: Order, ids: Sequence[str], currency: str) -> bytes:
    """Return the request that creates an ordered payment; `ids` are account ids by number."""
    return _post(target, "/v1/payments", order.key, payment_body(order, ids, currency))


def payment_body(order: Order, ids: Sequence[str], currency: str) -> dict[str, Any]:
    """Return the JSON body of an ordered payment."""
    return {
        "amount": order.amount_minor,
        "currency": currency,
        "source": {"account": ids[order.source]},
        "destination": {"account": ids[order.destination]},
        "description": f"order {order.of}",
        "context": {"device": f"dev-{order.source}"},
    }


def webhook(target: Target, source: str, delivery: Delivery, signature: Mapping[str, str]) -> bytes:
    """Return the request that delivers a partner's event."""
    return request(target, "POST", f"/v1/webhooks/{source}", signature, delivery.body)


def _post(target: Target, path: str, key: str, body: dict[str, Any]) -> bytes:
    headers = {"Authorization": f"Bearer {target.api_key}", "Idempotency-Key": key}
    return request(target, "POST", path, headers, json.dumps(body, separators=(",", ":")).encode())
