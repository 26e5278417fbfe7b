"""Commands as the streams write them, for tests, benches and simulation. Pure."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

from schemas import ids

TENANT: Final = "acme"
CURRENCY: Final = "EUR"

Record = dict[str, Any]


def account(name: str, kind: ids.Kind = "customer", tenant: str = TENANT) -> str:
    """Return the id of the account that this name, as a key, opens."""
    return ids.account_id(tenant, name, kind)


def account_on(partition: int, partitions: int, kind: ids.Kind = "customer", skip: int = 0) -> str:
    """Return the id of an account that is at home on this partition."""
    found = 0
    for number in range(100 * partitions * (skip + 1)):
        candidate = account(f"{kind}-{number}", kind)
        if ids.partition_of(ids.slot_of(candidate), partitions) == partition:
            if found == skip:
                return candidate
            found += 1
    raise AssertionError("no account in a hundred times the partitions")


def open_account(account_id: str, tenant: str = TENANT, **fields: Any) -> Record:
    """Return the command that opens an account."""
    record = _command("account.open", account_id, account_id, "open", tenant)
    given = {"account_id": account_id, "currency": CURRENCY}
    return {**record, **given, "account_kind": ids.kind_of(account_id), **fields}


def transfer(
    key: str, *movements: tuple[str, str, int], tenant: str = TENANT, **fields: Any
) -> Record:
    """Return the command that posts these movements (source, destination, amount), all or none."""
    home = fields.pop("home", ids.home_account(movements[0][0], movements[0][1]))
    payment = ids.payment_id(tenant, key, home)
    record = _command("transfer.post", payment, home, "post", tenant)
    record["legs"] = [
        {"source": source, "destination": destination, "amount_minor": amount, "currency": CURRENCY}
        for source, destination, amount in movements
    ]
    record["body_hash"] = body_hash(*movements)
    return {**record, "transfer_id": payment, **fields}


def reject(key: str, home: str, reason: str, tenant: str = TENANT) -> Record:
    """Return the command that claims a payment's identity and moves nothing."""
    record = _command("transfer.reject", ids.payment_id(tenant, key, home), home, "reject", tenant)
    return {**record, "reason": reason}


def body_hash(*body: object) -> str:
    """Return a SHA-256 in hex that differs when the body does."""
    return sha256(repr(body).encode()).hexdigest()


def _command(kind: str, saga_id: str, home: str, step: str, tenant: str) -> Record:
    return {
        "type": kind,
        "command_id": ids.command_id(saga_id, step, 1),
        "saga_id": saga_id,
        "step": step,
        "attempt": 1,
        "tenant": tenant,
        "identity": ids.identity_of(saga_id),
        "body_hash": body_hash(saga_id),
        "slot": ids.slot_of(home),
        "home_account": home,
        "requested_at_us": 0,
        "transfer_id": None,
        "legs": [],
        "effective_at_us": None,
        "reason": None,
        "reference": None,
        "metadata": {},
        "account_id": None,
        "currency": None,
        "account_kind": None,
        "account_name": None,
        "min_balance_minor": None,
        "max_balance_minor": None,
    }
