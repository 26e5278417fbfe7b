"""Identity and routing: every id is deterministic, and carries what is needed to route by it.

    acct_c2f1_<26>   account: kind (c customer, e external), slot in hex, identity
    pay_2f1_<26>     payment: slot of its home account in hex, identity
    tr_2f1_<26>      transfer: the same

`slot = murmur2(routing key) mod 1024`, fixed for ever. The routing key is the home account's id,
which is also the Kafka key; an account id is sealed so that its own murmur2 gives the slot that it
carries. So any Kafka client that partitions by key (the Java default) agrees with us whenever the
partition count divides 1024. The identity part alone tells two uses of one idempotency key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal

from schemas.errors import Rejected

SLOTS: Final = 1024
IDENTITY_LENGTH: Final = 26
SEAL_LENGTH: Final = 3

Kind = Literal["customer", "external"]

_KIND_BY_CODE: Final[dict[str, Kind]] = {"c": "customer", "e": "external"}
_CODE_BY_KIND: Final = {kind: code for code, kind in _KIND_BY_CODE.items()}
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_ACCOUNT: Final = re.compile(r"acct_[ce]([0-3][0-9a-f]{2})_[a-z2-7]{26}")
_PAYMENT: Final = re.compile(r"pay_([0-3][0-9a-f]{2})_[a-z2-7]{26}")
_TRANSFER: Final = re.compile(r"tr_([0-3][0-9a-f]{2})_[a-z2-7]{26}")
_ANY: Final = re.compile(r"(?:acct_[ce]|pay_|tr_)([0-3][0-9a-f]{2})_[a-z2-7]{26}")


def murmur2(data: bytes) -> int:
    """Hash as Kafka's default partitioner does: murmur2, 32 bits, seed 0x9747b28c, unsigned.

    Source: org.apache.kafka.common.utils.Utils.murmur2.
    """
    whole = len(data) & ~3
    h = 0x9747B28C ^ len(data)
    for i in range(0, whole, 4):
        h = _mix(h, int.from_bytes(data[i : i + 4], "little"))
    return _finish(h, data[whole:])


def account_id(tenant: str, idempotency_key: str, kind: Kind) -> str:
    """Derive the account's id from who asks and with which key; about a millisecond of work."""
    stem = _hash("account", tenant, idempotency_key)[: IDENTITY_LENGTH - SEAL_LENGTH]
    slot = murmur2(stem.encode()) % SLOTS
    return _seal(f"acct_{_CODE_BY_KIND[kind]}{slot:03x}_{stem}", slot)


def payment_id(tenant: str, idempotency_key: str, home: str) -> str:
    """Derive the payment's id; the slot is that of its home account."""
    return f"pay_{slot_of(home):03x}_{_hash('payment', tenant, idempotency_key)}"


def transfer_id(tenant: str, idempotency_key: str, home: str) -> str:
    """Derive a transfer's id; the slot is that of its home account."""
    return f"tr_{slot_of(home):03x}_{_hash('transfer', tenant, idempotency_key)}"


def operation_identity(tenant: str, idempotency_key: str) -> str:
    """Derive the identity of what is done to a payment, a transfer or an account."""
    return _hash("operation", tenant, idempotency_key)


def parse_slot(any_id: str) -> int:
    """Read the slot (0..1023) that an id of ours carries; Rejected when malformed."""
    match = _ANY.fullmatch(any_id)
    if match is None:
        raise Rejected("id_malformed", f"{any_id[:64]!r} is not an id of ours")
    return int(match[1], 16)


slot_of: Final = lru_cache(maxsize=16_384)(parse_slot)
"""Does what `parse_slot` does, faster for ids that come again, as those of accounts."""


def is_account_id(text: str) -> bool:
    """Tell whether `text` has the form of an account id (not whether the account exists)."""
    return _ACCOUNT.fullmatch(text) is not None


def is_payment_id(text: str) -> bool:
    """Tell whether `text` has the form of a payment id."""
    return _PAYMENT.fullmatch(text) is not None


def is_transfer_id(text: str) -> bool:
    """Tell whether `text` has the form of a transfer id."""
    return _TRANSFER.fullmatch(text) is not None


def identity_of(any_id: str) -> str:
    """Return what is the same however a second use of the key was routed (26 characters, base32).

    An account's seal depends on its kind, so it is no part of its identity.
    """
    if any_id[:1] == "a":  # acct_, and the only kind that begins so
        return any_id[-IDENTITY_LENGTH:-SEAL_LENGTH] + "a" * SEAL_LENGTH
    return any_id[-IDENTITY_LENGTH:]


def kind_of(account: str) -> Kind:
    """Return the kind that a well-formed account id carries."""
    return _KIND_BY_CODE[account[5]]


def is_guarded(account: str) -> bool:
    """Tell whether the account's balance is guarded: only its home partition may debit it."""
    return account[5] == "c"


def home_account(source: str, destination: str) -> str:
    """Return the guarded side of a movement: the debited one if both or neither are guarded."""
    if is_guarded(source) or not is_guarded(destination):
        return source
    return destination


def payback_home(legs: Sequence[tuple[str, str]], index: int) -> str:
    """Return the account at whose home it is decided what is paid back of one leg.

    `legs` are sources and destinations. It is the leg's payee if that is guarded, else the first
    guarded payee of all legs, else the first guarded payer, else the first payee: so reversals of
    one leg are all decided in one log.
    """
    payees = [payee for _, payee in legs]
    sides = [payees[index], *payees, *(payer for payer, _ in legs)]
    return next((side for side in sides if is_guarded(side)), payees[0])


def partition_of(slot: int, partitions: int) -> int:
    """Route a slot to a partition (the default routing table)."""
    return slot % partitions


def webhook_key(source: str, event_id: str) -> str:
    """Return the routing key of a partner's event."""
    return f"{source}:{event_id}"


def slot_of_key(key: str) -> int:
    """Hash any routing key to its slot."""
    return murmur2(key.encode()) % SLOTS


def command_id(saga_id: str, step: str, attempt: int) -> str:
    """Name a ledger command; a replay of the saga names it the same."""
    return f"{saga_id}/{step}/{attempt}"


def event_id(topic: str, partition: int, offset: int, ordinal: int) -> str:
    """Name an event by the record that caused it and its place among that record's events."""
    return f"{topic}-{partition}-{offset}-{ordinal}"


def _hash(domain: str, tenant: str, key: str) -> str:
    digest = hashlib.sha256(f"{domain}\x00{tenant}\x00{key}".encode()).digest()
    return base64.b32encode(digest[:16]).decode().lower().rstrip("=")


def _seal(stem: str, slot: int) -> str:
    """Append the first three characters that make murmur2 of the whole id give `slot`.

    32,768 candidates for one chance in 1,024 each: none fits once in about 10**14 ids.
    """
    encoded = stem.encode()
    assert len(encoded) % 4 == 1, "the three characters complete the last four-byte block"
    h = 0x9747B28C ^ (len(encoded) + 3)
    for i in range(0, len(encoded) - 1, 4):
        h = _mix(h, int.from_bytes(encoded[i : i + 4], "little"))
    for a in _BASE32:
        for b in _BASE32:
            for c in _BASE32:
                tail = a + b + c
                block = int.from_bytes(encoded[-1:] + tail.encode(), "little")
                if _finish(_mix(h, block), b"") % SLOTS == slot:
                    return stem + tail
    raise AssertionError("no seal among 32,768 candidates")


def _mix(h: int, k: int) -> int:
    k = (k * 0x5BD1E995) & 0xFFFFFFFF
    k ^= k >> 24
    k = (k * 0x5BD1E995) & 0xFFFFFFFF
    return ((h * 0x5BD1E995) & 0xFFFFFFFF) ^ k


def _finish(h: int, tail: bytes) -> int:
    if tail:
        h ^= int.from_bytes(tail, "little")
        h = (h * 0x5BD1E995) & 0xFFFFFFFF
    h ^= h >> 13
    h = (h * 0x5BD1E995) & 0xFFFFFFFF
    return h ^ (h >> 15)
