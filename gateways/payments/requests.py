"""A validated request as the record that the gateway writes, and where it goes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from gateways.payments.bodies import AccountBody, PaymentBody
from gateways.payments.canonical import Kind, body_hash
from schemas import ids

TOPIC: Final = "payments.requests"

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """The HTTP request behind a record."""

    tenant: str
    request_id: str
    received_at_us: int


def payment(
    body: PaymentBody, key: str, caller: Caller, reply_partition: int | None = None
) -> Record:
    """Build the request for a payment."""
    source, destination = body.source.account, body.destination.account
    home = ids.home_account(source, destination)
    payment_id = ids.payment_id(caller.tenant, key, home)
    record = _record("payment.create", body, key, caller, resource_id=payment_id, home=home)
    record["amount_minor"] = body.amount
    record["source_account"] = source
    record["destination_account"] = destination
    record["capture"] = body.capture
    record["expires_in_s"] = body.expires_in
    record["description"] = body.description
    record["reference"] = body.reference
    record["context"] = body.context
    record["reply_partition"] = reply_partition
    return record


def account(
    body: AccountBody, key: str, caller: Caller, reply_partition: int | None = None
) -> Record:
    """Build the request to open an account."""
    account_id = ids.account_id(caller.tenant, key, body.kind)
    record = _record("account.open", body, key, caller, resource_id=account_id, home=account_id)
    record["account_kind"] = body.kind
    record["account_name"] = body.name
    if body.limits is not None:
        record["min_balance_minor"] = body.limits.min_balance
        record["max_balance_minor"] = body.limits.max_balance
    record["reply_partition"] = reply_partition
    return record


def _record(
    kind: Kind,
    body: PaymentBody | AccountBody,
    key: str,
    caller: Caller,
    *,
    resource_id: str,
    home: str,
) -> Record:
    return {
        "type": kind,
        "request_id": caller.request_id,
        "resource_id": resource_id,
        "tenant": caller.tenant,
        "idempotency_key": key,
        "identity": ids.identity_of(resource_id),
        "body_hash": body_hash(kind, body),
        "slot": ids.slot_of(home),
        "home_account": home,
        "received_at_us": caller.received_at_us,
        "currency": body.currency,
        "metadata": body.metadata,
    }
