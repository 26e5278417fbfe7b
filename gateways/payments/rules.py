"""What a request must be beyond its types; every broken rule is named at its field. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec

from gateways.payments import times
from gateways.payments.bodies import (
    AccountBody,
    AccountLimits,
    PaymentBody,
    ReversalBody,
    TransferBody,
)
from gateways.problems import FieldError, Refused, invalid
from schemas import ids
from schemas.ids import is_account_id
from schemas.money import EXPONENTS

Body = TypeVar("Body")

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_CARD: Final = re.compile(
    r"(?<![0-9A-Za-z])(?=("
    r"[2-6]\d{12,18}"
    r"|[2-6]\d{3}([ -])\d{4}\2\d{4}\2\d{4}"
    r"|3\d{3}([ -])\d{6}\3\d{4,5}"
    r")(?![0-9A-Za-z]))"
)
_CARD_LENGTH_MIN: Final = 13
_PATH: Final = re.compile(r" - at (`key` in )?`\$(.*)`$")
_PART: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_NAMED: Final = re.compile(r"Object (?:missing required|contains unknown) field `([^`]*)`")
_CODES: Final = (
    ("Object missing required field", "field_missing"),
    ("Object contains unknown field", "field_unknown"),
    ("Invalid enum value", "value_unknown"),
    ("matching regex", "format_invalid"),
    ("of length", "length_out_of_range"),
    (">=", "out_of_range"),
    ("<=", "out_of_range"),
)


def decode(decoder: msgspec.json.Decoder[Body], data: bytes | msgspec.Raw) -> Body:
    """Decode a body; Refused: 400 when it is not JSON, 422 when a field breaks its type."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _as_refused(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused("json_malformed", f"{error}.") from error


def check_payment(body: PaymentBody) -> None:
    """Raise Refused with every rule that the payment breaks."""
    errors = []
    if body.currency not in EXPONENTS:
        errors.append(_currency(body.currency))
    for side, party in (("source", body.source), ("destination", body.destination)):
        if not is_account_id(party.account):
            errors.append(FieldError(f"/{side}/account", "format_invalid", "is no account id"))
    if body.source.account == body.destination.account:
        detail = "must differ from the source"
        errors.append(FieldError("/destination/account", "same_account", detail))
    if body.expires_in is not None and body.capture == "automatic":
        detail = "applies only to manual capture"
        errors.append(FieldError("/expires_in", "field_not_applicable", detail))
    if body.description is not None:
        errors += _text("/description", body.description)
    if body.reference is not None:
        errors += _text("/reference", body.reference)
    if body.metadata:
        errors += _pairs("/metadata", body.metadata)
    if body.context:
        errors += _pairs("/context", body.context)
    _raise(errors)


def check_account(body: AccountBody) -> None:
    """Raise Refused with every rule that the account breaks."""
    errors = []
    if body.currency not in EXPONENTS:
        errors.append(_currency(body.currency))
    if body.name is not None:
        errors += _text("/name", body.name)
    if body.metadata:
        errors += _pairs("/metadata", body.metadata)
    limits = body.limits
    if limits is not None and _crossed(limits):
        detail = "must not lie below min_balance"
        errors.append(FieldError("/limits/max_balance", "out_of_range", detail))
    _raise(errors)


def check_transfer(body: TransferBody) -> None:
    """Raise Refused with every rule that the transfer breaks."""
    errors: list[FieldError] = []
    for index, leg in enumerate(body.legs):
        at = f"/legs/{index}"
        if leg.currency not in EXPONENTS:
            errors.append(_currency(leg.currency, f"{at}/currency"))
        for side, account in (("source", leg.source), ("destination", leg.destination)):
            if not is_account_id(account):
                errors.append(FieldError(f"{at}/{side}", "format_invalid", "is no account id"))
        if leg.source == leg.destination:
            detail = "must differ from the source"
            errors.append(FieldError(f"{at}/destination", "same_account", detail))
    _raise([*errors, *_said(body)])


def check_reversal(body: ReversalBody) -> None:
    """Raise Refused with every rule that what is said of a reversal breaks."""
    _raise(list(_said(body)))


def effective_us(body: TransferBody) -> int | None:
    """Return when the transfer counts, in microseconds since the epoch; Refused if it is no time.

    None: when it is booked.
    """
    if body.effective_at is None:
        return None
    at_us = times.parse(body.effective_at)
    if at_us is None:
        detail = "must be an RFC 3339 time, such as 2026-01-31T12:00:00Z"
        raise invalid("/effective_at", "format_invalid", detail)
    if at_us < 0:
        raise invalid("/effective_at", "out_of_range", "must not lie before 1970")
    return at_us


def payback_home(legs: list[tuple[str, str]], leg: int | None) -> str:
    """Return the account at whose home a reversal begins; `legs`: source and destination.

    That of the first leg if it is the whole that is paid back. Refused where the transfer has no
    such leg.
    """
    if leg is not None and leg >= len(legs):
        detail = f"must be the index of one of the transfer's legs: 0 to {len(legs) - 1}"
        raise invalid("/leg", "out_of_range", detail)
    return ids.payback_home(legs, leg or 0)


def holds_card_number(text: str) -> bool:
    """Tell whether 13 to 19 digits in `text` look like a card's number: issuer prefix and Luhn.

    Card networks number from 2 to 6 (ISO/IEC 7812). Digits stand together, or in a card's groups
    (4-4-4-4, 4-6-5, 4-6-4) with spaces or hyphens; those inside longer words don't count.
    """
    if len(text) < _CARD_LENGTH_MIN:
        return False
    return any(_luhn(match[1]) for match in _CARD.finditer(text))


def _crossed(limits: AccountLimits) -> bool:
    low, high = limits.min_balance, limits.max_balance
    return low is not None and high is not None and low > high


def _luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _currency(code: str, at: str = "/currency") -> FieldError:
    return FieldError(at, "currency_unknown", f"{code!r} is not an active ISO 4217 code")


def _text(pointer: str, text: str) -> Iterator[FieldError]:
    if not text.isprintable() and _CONTROL.search(text):
        yield FieldError(pointer, "characters_invalid", "control characters are not taken")
    if holds_card_number(text):
        detail = "looks like a card number; send a token instead"
        yield FieldError(pointer, "card_number_refused", detail)


def _said(body: TransferBody | ReversalBody) -> Iterator[FieldError]:
    if body.reference is not None:
        yield from _text("/reference", body.reference)
    yield from _pairs("/metadata", body.metadata)


def _pairs(pointer: str, pairs: Mapping[str, str]) -> Iterator[FieldError]:
    for key, value in pairs.items():
        at = f"{pointer}/{_escaped(key)}"
        yield from _text(at, key)
        yield from _text(at, value)


def _raise(errors: list[FieldError]) -> None:
    if errors:
        detail = "; ".join(f"{error.pointer}: {error.detail}" for error in errors[:3])
        raise Refused("validation_failed", detail, *errors)


def _as_refused(error: msgspec.ValidationError) -> Refused:
    """Read pointer and code from "Expected `int`, got `str` - at `$.amount`"."""
    text = str(error)
    path = _PATH.search(text)
    rule = text[: path.start()] if path else text
    pointer = ""
    for name, index in _PART.findall(path[2] if path else ""):
        pointer += f"/{_escaped(name or index)}" if index != "..." else ""
    named = _NAMED.match(rule)
    if named is not None:
        pointer += f"/{_escaped(named[1])}"
    code = next((code for mark, code in _CODES if mark in rule), "type_invalid")
    if path and path[1]:
        rule = f"a key: {rule}"
    where = pointer or "the body"
    return Refused("validation_failed", f"{where}: {rule}", FieldError(pointer, code, rule))


def _escaped(name: Any) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")
