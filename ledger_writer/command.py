"""Reads a decoded `ledger.commands` record as a Command, or says why it can never be one.

Poisoned is for what no decision could be made on, or could not be kept: an unknown type, an
amount below one, no legs, a routing that contradicts itself, text that Postgres can't hold. What
can be decided is decided, and refused by the ledger's rules where need be. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from ledger_writer.model import LEGS_MAX, AccountDraft, Command, Leg
from schemas.errors import Poisoned
from schemas.ids import is_account_id, kind_of, slot_of
from schemas.money import AMOUNT_MINOR_MAX

POST: Final = "transfer.post"
REJECT: Final = "transfer.reject"
OPEN: Final = "account.open"

_DIGEST_BYTES: Final = 32
_INT32_MAX: Final = 2**31 - 1


def read_command(record: dict[str, Any], offset: int, timestamp_ms: int) -> Command:
    """Return the command in `record`; Poisoned when it has no meaning."""
    kind = record["type"]
    legs: tuple[Leg, ...] = ()
    draft = None
    if kind == POST:
        legs = _legs(record["legs"])
    elif kind == OPEN:
        draft = _draft(record)
    elif kind != REJECT:
        raise Poisoned(f"type {kind[:64]!r} is not a command of the ledger")
    elif not record["reason"]:
        raise Poisoned(f"a {REJECT} must say its reason")
    _check_routing(record["home_account"], record["slot"])
    if not 1 <= record["attempt"] <= _INT32_MAX:
        raise Poisoned(f"attempt {record['attempt']} is below 1")
    command = Command(
        kind,
        offset,
        timestamp_ms * 1000,
        record["saga_id"],
        record["step"],
        record["attempt"],
        record["tenant"],
        record["identity"],
        _digest(record["body_hash"]),
        record["slot"],
        record["home_account"],
        record["transfer_id"] or None,
        legs,
        record["effective_at_us"],
        record["reason"],
        draft,
        record["reference"],
        record["metadata"],
    )
    _check_text(command)
    return command


def _legs(legs: list[dict[str, Any]]) -> tuple[Leg, ...]:
    if not 1 <= len(legs) <= LEGS_MAX:
        raise Poisoned(f"a transfer has 1 to {LEGS_MAX} legs, not {len(legs)}")
    for leg in legs:
        if not 1 <= leg["amount_minor"] <= AMOUNT_MINOR_MAX:
            raise Poisoned(f"amount_minor {leg['amount_minor']} is not in 1..{AMOUNT_MINOR_MAX}")
    return tuple(
        Leg(leg["source"], leg["destination"], leg["amount_minor"], leg["currency"]) for leg in legs
    )


def _draft(record: dict[str, Any]) -> AccountDraft:
    account_id, kind = record["account_id"], record["account_kind"]
    if not account_id or not is_account_id(account_id):
        raise Poisoned("an account.open must name a well-formed account_id")
    if kind != kind_of(account_id):
        raise Poisoned(f"account_kind {kind!r} contradicts {account_id}")
    if account_id != record["home_account"]:
        raise Poisoned(f"{account_id} is opened at its own home, not at another account's")
    if not record["currency"]:
        raise Poisoned("an account.open must name a currency")
    return AccountDraft(
        account_id,
        record["currency"],
        kind,
        record["account_name"],
        record["min_balance_minor"],
        record["max_balance_minor"],
    )


def _check_routing(home_account: str, slot: int) -> None:
    if not is_account_id(home_account):
        raise Poisoned(f"home_account {home_account[:64]!r} is not an account id")
    if slot_of(home_account) != slot:
        raise Poisoned(f"slot {slot} is not that of {home_account}")


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != _DIGEST_BYTES:
        raise Poisoned("body_hash is not a SHA-256 in hex")
    return digest


def _check_text(command: Command) -> None:
    """Refuse a zero character, which no text in Postgres can hold, where text is stored as such."""
    stored = (
        command.saga_id,
        command.step,
        command.tenant,
        command.identity,
        command.transfer_id or "",
        command.reason or "",
    )
    if "\0" in "".join(stored):
        raise Poisoned("an id, a step, a tenant or a reason holds a zero character")
    if not (command.saga_id and command.step and command.tenant and command.identity):
        raise Poisoned("saga_id, step, tenant and identity must not be empty")
