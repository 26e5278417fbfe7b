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
    record["legs"] = [_leg(*movement) for movement in movements]
    record["body_hash"] = body_hash(*movements)
    return {**record, "transfer_id": payment, **fields}


def hold(
    key: str, source: str, destination: str, amount_minor: int, tenant: str = TENANT, **fields: Any
) -> Record:
    """Return the command that holds an amount of the source's for the destination."""
    home = fields.pop("home", ids.home_account(source, destination))
    payment = ids.payment_id(tenant, key, home)
    record = _command("hold.place", payment, home, "place", tenant)
    record["legs"] = [_leg(source, destination, amount_minor)]
    record["body_hash"] = body_hash("hold", source, destination, amount_minor)
    return {**record, "transfer_id": payment, "hold_id": payment, **fields}


def capture(key: str, of: Record, amount_minor: int | None = None, **fields: Any) -> Record:
    """Return the command that posts part of a hold, or all that is left."""
    given = {"hold_id": of["hold_id"], "amount_minor": amount_minor}
    return {**_operation("hold.post", "capture", key, of, amount_minor), **given, **fields}


def void(key: str, of: Record, **fields: Any) -> Record:
    """Return the command that gives back what is left of a hold."""
    given = {"hold_id": of["hold_id"], "reason": "voided"}
    return {**_operation("hold.void", "void", key, of), **given, **fields}


def expire(of: Record, attempt: int = 1) -> Record:
    """Return the command that ends a hold whose time is over, under the payment's own identity."""
    record = _command("hold.void", of["saga_id"], of["home_account"], "expire", of["tenant"])
    given = {"transfer_id": of["saga_id"], "hold_id": of["hold_id"], "reason": "expired"}
    command_id = ids.command_id(of["saga_id"], "expire", attempt)
    return {**record, **given, "attempt": attempt, "command_id": command_id}


def reverse(key: str, of: Record, amount_minor: int | None = None, **fields: Any) -> Record:
    """Return the command that pays back a transfer or payment, or part of it."""
    leg = fields.get("original_leg")
    movement = of["legs"][leg or 0]
    home = fields.pop("home", ids.home_account(movement["destination"], movement["source"]))
    record = _operation("transfer.reverse", "refund", key, of, amount_minor, leg)
    given = {"original_id": of["saga_id"], "amount_minor": amount_minor}
    return {**record, **given, "home_account": home, "slot": ids.slot_of(home), **fields}


def linked(kind: str, of: Record, part: str, number: int = 1, **fields: Any) -> Record:
    """Return what the saga asks of the home of `part`: to prepare, commit or abort `of`'s legs."""
    step = f"{kind.partition('.')[2]}-{number}"
    record = _command(kind, of["saga_id"], part, step, of["tenant"])
    given = {name: of[name] for name in ("body_hash", "legs", "dry_run")}
    return {**record, **given, "transfer_id": of["saga_id"], **fields}


def reversed_part(
    kind: str, asked: Record, home: Record, part: str, number: int = 1, **fields: Any
) -> Record:
    """Return what is asked of the home of `part` of a reversal; `home` is the event of its own."""
    step = f"{kind.partition('.')[2]}-{number}-{asked['identity']}"
    given = {name: home[name] for name in ("legs", "original_legs")}
    return {
        **asked,
        **given,
        "original_leg": None,
        "amount_minor": None,
        "type": kind,
        "step": step,
        "command_id": ids.command_id(asked["saga_id"], step, 1),
        "home_account": part,
        "slot": ids.slot_of(part),
        **fields,
    }


def flags(kind: str, key: str, account_id: str, tenant: str = TENANT, **fields: Any) -> Record:
    """Return the account.freeze, account.unfreeze or account.close of this account."""
    of = _command(kind, account_id, account_id, "", tenant)
    record = _operation(kind, kind.partition(".")[2], key, of, fields)
    return {**record, "account_id": account_id, **fields}


def reject(key: str, home: str, reason: str, tenant: str = TENANT) -> Record:
    """Return the command that claims a payment's identity and moves nothing."""
    record = _command("transfer.reject", ids.payment_id(tenant, key, home), home, "reject", tenant)
    return {**record, "reason": reason}


def body_hash(*body: object) -> str:
    """Return a SHA-256 in hex that differs when the body does."""
    return sha256(repr(body).encode()).hexdigest()


def _leg(source: str, destination: str, amount_minor: int) -> Record:
    return {
        "source": source,
        "destination": destination,
        "amount_minor": amount_minor,
        "currency": CURRENCY,
    }


def _operation(kind: str, step: str, key: str, of: Record, *body: object) -> Record:
    """Return a command about `of`'s saga that has an identity of its own."""
    identity = ids.operation_identity(of["tenant"], key)
    step = f"{step}-{identity}"
    record = _command(kind, of["saga_id"], of["home_account"], step, of["tenant"])
    given = {"identity": identity, "body_hash": body_hash(kind, of["saga_id"], *body)}
    return {**record, **given, "transfer_id": of["saga_id"]}


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
        "hold_id": None,
        "expires_at_us": None,
        "amount_minor": None,
        "original_id": None,
        "original_leg": None,
        "original_legs": [],
        "dry_run": False,
        "reservation_id": None,
        "debits": None,
        "credits": None,
        "failed_leg": None,
    }
