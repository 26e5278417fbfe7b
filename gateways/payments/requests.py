"""A validated request as the record that the gateway writes, and where it goes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateways.payments.bodies import (
    AccountBody,
    AmountBody,
    EmptyBody,
    FlagsBody,
    PaymentBody,
    ReversalBody,
    TransferBody,
)
from gateways.payments.canonical import Kind, body_hash
from schemas import ids

TOPIC: Final = "payments.requests"

EXPIRES_S_DEFAULT: Final = 7 * 86_400
"""How long an authorization lives unless the request says otherwise."""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """What is acted upon, and the account that it is decided at."""

    id: str
    home: str


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
    record["currency"] = body.currency
    record["metadata"] = body.metadata
    record["amount_minor"] = body.amount
    record["source_account"] = source
    record["destination_account"] = destination
    record["capture"] = body.capture
    record["expires_in_s"] = body.expires_in
    if body.capture == "manual" and body.expires_in is None:
        record["expires_in_s"] = EXPIRES_S_DEFAULT
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
    record["currency"] = body.currency
    record["metadata"] = body.metadata
    record["account_kind"] = body.kind
    record["account_name"] = body.name
    if body.limits is not None:
        record["min_balance_minor"] = body.limits.min_balance
        record["max_balance_minor"] = body.limits.max_balance
    record["reply_partition"] = reply_partition
    return record


def operation(
    kind: Kind,
    body: AmountBody | EmptyBody | FlagsBody,
    key: str,
    caller: Caller,
    target: Target,
) -> Record:
    """Build the request for what is done to a payment or an account."""
    record = _record(
        kind, body, key, caller, resource_id=target.id, home=target.home, target=target.id
    )
    record["identity"] = ids.operation_identity(caller.tenant, key)
    record["target_id"] = target.id
    if isinstance(body, AmountBody):
        record["amount_minor"] = body.amount
    if isinstance(body, FlagsBody):
        both = not body.debits and not body.credits
        record["debits"] = True if body.debits or both else None
        record["credits"] = True if body.credits or both else None
    return record


def transfer(body: TransferBody, key: str, caller: Caller, effective_at_us: int | None) -> Record:
    """Build the request for a transfer; its home is that of the first guarded debited account.

    What is only tried leaves its key alone, for the transfer itself: each try has an identity of
    its own, of a form that no key can have, and is decided anew.
    """
    home = home_of([(leg.source, leg.destination) for leg in body.legs])
    named = key if not body.dry_run else f"\x1f{caller.request_id}"
    transfer_id = ids.transfer_id(caller.tenant, named, home)
    record = _record("transfer.create", body, key, caller, resource_id=transfer_id, home=home)
    record["legs"] = [
        {
            "source": leg.source,
            "destination": leg.destination,
            "amount_minor": leg.amount,
            "currency": leg.currency,
        }
        for leg in body.legs
    ]
    record["effective_at_us"] = effective_at_us
    record["reference"] = body.reference
    record["metadata"] = body.metadata
    record["dry_run"] = body.dry_run
    return record


def reversal(body: ReversalBody, key: str, caller: Caller, original: str, home: str) -> Record:
    """Build the request that pays a transfer back, for the home where that is decided."""
    transfer_id = ids.transfer_id(caller.tenant, key, home)
    record = _record(
        "transfer.reverse",
        body,
        key,
        caller,
        resource_id=transfer_id,
        home=home,
        target=original,
    )
    record["target_id"] = original
    record["amount_minor"] = body.amount
    record["original_leg"] = body.leg
    record["reference"] = body.reference
    record["metadata"] = body.metadata
    return record


def home_of(movements: list[tuple[str, str]]) -> str:
    """Return the home of (source, destination) movements: the first guarded side, debits first."""
    for source, _ in movements:
        if ids.is_guarded(source):
            return source
    return ids.home_account(*movements[0])


def _record(
    kind: Kind,
    body: msgspec.Struct,
    key: str,
    caller: Caller,
    *,
    resource_id: str,
    home: str,
    target: str = "",
) -> Record:
    return {
        "type": kind,
        "request_id": caller.request_id,
        "resource_id": resource_id,
        "tenant": caller.tenant,
        "idempotency_key": key,
        "identity": ids.identity_of(resource_id),
        "body_hash": body_hash(kind, body, target),
        "slot": ids.slot_of(home),
        "home_account": home,
        "received_at_us": caller.received_at_us,
    }
