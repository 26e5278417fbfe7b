"""Reads a decoded `ledger.commands` record as a Command, or says why it can never be one.

Poisoned is for what no decision could be made on, or could not be kept: an unknown type, an
amount below one, no legs, a routing that contradicts itself, text that Postgres can't hold. What
can be decided is decided, and refused by the ledger's rules where need be. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from ledger_writer.model import LEGS_MAX, AccountDraft, Command, Leg
from ledger_writer.operations import EXPIRED, VOIDED, FlagsAsk, HoldAsk, ReversalAsk
from schemas.errors import Poisoned
from schemas.ids import (
    IDENTITY_LENGTH,
    is_account_id,
    is_payment_id,
    is_transfer_id,
    kind_of,
    slot_of,
)
from schemas.money import AMOUNT_MINOR_MAX

POST: Final = "transfer.post"
REJECT: Final = "transfer.reject"
PREPARE: Final = "transfer.prepare"
COMMIT: Final = "transfer.commit"
ABORT: Final = "transfer.abort"
REVERSE: Final = "transfer.reverse"
PLACE: Final = "hold.place"
CAPTURE: Final = "hold.post"
VOID: Final = "hold.void"
OPEN: Final = "account.open"
FREEZE: Final = "account.freeze"
UNFREEZE: Final = "account.unfreeze"
CLOSE: Final = "account.close"

LINKED: Final = frozenset({POST, PREPARE, COMMIT, ABORT})
STEPPING: Final = frozenset({PREPARE, COMMIT, ABORT})
"""Asked of each home of a transfer that several must agree on."""
HOLDS: Final = frozenset({PLACE, CAPTURE, VOID})
FLAGS: Final = frozenset({FREEZE, UNFREEZE, CLOSE})
STEPS: Final = {POST: "post", REJECT: "reject", PLACE: "place", OPEN: "open"}
"""Commands that begin a saga, and the step that each is: a row thus tells whether it began one."""

STEPPED: Final = ("prepare-", "commit-", "abort-")
"""What the steps of STEPPING commands begin with, and of no others."""

_BEGINNINGS: Final = frozenset(STEPS.values())
_DIGEST_BYTES: Final = 32
_INT32_MAX: Final = 2**31 - 1


def read_command(record: dict[str, Any], offset: int, timestamp_ms: int) -> Command:
    """Return the command in `record`; Poisoned when it has no meaning."""
    kind = record["type"]
    legs: tuple[Leg, ...] = ()
    draft = hold = reversal = flags = None
    if kind in LINKED:
        legs = _legs(record["legs"])
        if kind != POST:
            reversal = _part(record)
            _check_linked(record)
    elif kind == OPEN:
        draft = _draft(record)
    elif kind in HOLDS:
        hold = _hold(record)
        legs = _legs(record["legs"]) if kind == PLACE else ()
    elif kind == REVERSE:
        reversal = _reversal(record)
    elif kind in FLAGS:
        flags = _flags(record)
    elif kind != REJECT:
        raise Poisoned(f"type {kind[:64]!r} is not a command of the ledger")
    elif not record["reason"]:
        raise Poisoned(f"a {REJECT} must say its reason")
    _check_routing(record)
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
        record["dry_run"],
        hold,
        reversal,
        flags,
        record["failed_leg"] if kind == ABORT else None,
    )
    _check_text(command)
    return command


def _legs(legs: list[dict[str, Any]]) -> tuple[Leg, ...]:
    if not 1 <= len(legs) <= LEGS_MAX:
        raise Poisoned(f"a transfer has 1 to {LEGS_MAX} legs, not {len(legs)}")
    for leg in legs:
        if not 1 <= leg["amount_minor"] <= AMOUNT_MINOR_MAX:
            raise Poisoned(f"amount_minor {leg['amount_minor']} is not in 1..{AMOUNT_MINOR_MAX}")
        if "\0" in leg["source"] or "\0" in leg["destination"]:
            raise Poisoned("an account of a leg holds a zero character")
    return tuple(
        Leg(leg["source"], leg["destination"], leg["amount_minor"], leg["currency"]) for leg in legs
    )


def _check_linked(record: dict[str, Any]) -> None:
    saga_id, kind = record["saga_id"], record["type"]
    if not is_payment_id(saga_id) and not is_transfer_id(saga_id):
        raise Poisoned(f"a {kind} must be of a payment or a transfer")
    if not record["original_id"] and saga_id[-IDENTITY_LENGTH:] != record["identity"]:
        raise Poisoned(f"a {kind} has the identity of its saga")
    if kind == ABORT and not record["reason"]:
        raise Poisoned(f"a {ABORT} must say its reason")


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


def _hold(record: dict[str, Any]) -> HoldAsk:
    kind, hold_id, reason = record["type"], record["hold_id"], record["reason"]
    if not hold_id or "\0" in hold_id:
        raise Poisoned(f"a {kind} must name a hold_id")
    if kind == PLACE and len(record["legs"]) != 1:
        raise Poisoned(f"a {PLACE} has one leg, not {len(record['legs'])}")
    if kind == PLACE and hold_id[-IDENTITY_LENGTH:] != record["identity"]:
        raise Poisoned(f"{hold_id[:64]!r} is not of the identity that places it")
    if kind == VOID and reason not in (None, VOIDED, EXPIRED):
        raise Poisoned(f"a hold is {VOIDED} or {EXPIRED}, not {reason[:64]!r}")
    return HoldAsk(
        hold_id,
        _amount(record) if kind == CAPTURE else None,
        record["expires_at_us"] if kind == PLACE else None,
        (reason or VOIDED) if kind == VOID else None,
    )


def _reversal(record: dict[str, Any]) -> ReversalAsk:
    original_id, leg = record["original_id"], record["original_leg"]
    if not original_id:
        raise Poisoned(f"a {REVERSE} must name an original_id")
    if leg is not None and not 0 <= leg < LEGS_MAX:
        raise Poisoned(f"original_leg {leg} is not in 0..{LEGS_MAX - 1}")
    return ReversalAsk(original_id, leg, _amount(record))


def _part(record: dict[str, Any]) -> ReversalAsk | None:
    """Return which legs of which original one home's part of a reversal pays back."""
    original_id, legs = record["original_id"], tuple(record["original_legs"])
    if not original_id:
        return None
    if len(legs) != len(record["legs"]) or len({*legs}) != len(legs):
        raise Poisoned("original_legs must name a leg of the original for each of legs, each once")
    if not all(0 <= leg < LEGS_MAX for leg in legs):
        raise Poisoned(f"original_legs are not in 0..{LEGS_MAX - 1}")
    return ReversalAsk(original_id, None, None, legs)


def _flags(record: dict[str, Any]) -> FlagsAsk:
    account_id, debits, credits_ = record["account_id"], record["debits"], record["credits"]
    if not account_id or not is_account_id(account_id):
        raise Poisoned(f"an {record['type']} must name a well-formed account_id")
    if debits is None and credits_ is None:
        debits = credits_ = True
    return FlagsAsk(account_id, bool(debits), bool(credits_))


def _amount(record: dict[str, Any]) -> int | None:
    amount_minor: int | None = record["amount_minor"]
    if amount_minor is not None and not 1 <= amount_minor <= AMOUNT_MINOR_MAX:
        raise Poisoned(f"amount_minor {amount_minor} is not in 1..{AMOUNT_MINOR_MAX}")
    return amount_minor


def _check_routing(record: dict[str, Any]) -> None:
    home_account, slot, attempt = record["home_account"], record["slot"], record["attempt"]
    if not is_account_id(home_account):
        raise Poisoned(f"home_account {home_account[:64]!r} is not an account id")
    if slot_of(home_account) != slot:
        raise Poisoned(f"slot {slot} is not that of {home_account}")
    if not 1 <= attempt <= _INT32_MAX:
        raise Poisoned(f"attempt {attempt} is below 1")
    kind, step = record["type"], record["step"]
    expected = STEPS.get(kind)
    wrong = step != expected if expected else step in _BEGINNINGS
    if wrong or step.startswith(STEPPED) != (kind in STEPPING):
        raise Poisoned(f"{step[:64]!r} is not a step of a {kind}")


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
