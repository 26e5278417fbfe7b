"""The plain task's records and their meaning, shared by headrace and its peers. Pure.

Per account a ring of five one-minute buckets of count and sum; each payment updates its account's
ring and gives one record with what the last five minutes hold. Time is the payment's own field, so
every system must write the same bytes. Imports nothing but fastavro: the peers' environments have
no more.
"""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

import fastavro

IN_SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Payment",
    "fields": [
        {"name": "payment_id", "type": "string"},
        {"name": "account_id", "type": "string"},
        {"name": "destination_id", "type": "string"},
        {"name": "amount_minor", "type": "long"},
        {"name": "currency", "type": "string"},
        {"name": "requested_at_us", "type": "long"},
        {"name": "body_hash", "type": "string"},
    ],
}
OUT_SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Velocity",
    "fields": [
        {"name": "payment_id", "type": "string"},
        {"name": "account_id", "type": "string"},
        {"name": "count", "type": "long"},
        {"name": "sum_minor", "type": "long"},
        {"name": "at_us", "type": "long"},
    ],
}
IN_FRAME: Final = struct.pack(">BI", 0, 9001)
OUT_FRAME: Final = struct.pack(">BI", 0, 9002)

SLOTS: Final = 1024
MINUTE_US: Final = 60_000_000
BUCKETS: Final = 5
RING: Final = struct.Struct(f">{3 * BUCKETS}q")
"""A ring's bytes: (minute, count, sum) five times."""

STARTS_AT_US: Final = 1_800_000_000_000_000
STEP_US: Final = 1_000
"""Payments are a millisecond apart, so that a hundred thousand turn buckets over."""

_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"

Fields = dict[str, Any]
Keyed = tuple[int, bytes, bytes]
"""A record to write: partition, key, value."""


@lru_cache(maxsize=50_000)
def account(number: int) -> str:
    """Name account `number`: an id of the usual form, its slot in it (but not sealed by it)."""
    digits = []
    rest = number
    while rest:
        rest, digit = divmod(rest, 32)
        digits.append(_BASE32[digit])
    return f"acct_c{number % SLOTS:03x}_{''.join(digits):a>26}"


def slot_of(account_id: str) -> int:
    """Read the slot of an account id that `account` made."""
    return int(account_id[6:9], 16)


def payment(number: int, rng: random.Random, accounts: int) -> Fields:
    """Make payment `number` of one of so many accounts; the same for the same generator."""
    return {
        "payment_id": f"pay_{number:032d}",
        "account_id": account(int(rng.random() * accounts)),
        "destination_id": account(int(rng.random() * accounts)),
        "amount_minor": int(rng.random() * 100_000) + 1,
        "currency": "EUR",
        "requested_at_us": STARTS_AT_US + number * STEP_US,
        "body_hash": f"{number:064x}",
    }


def payments(count: int, accounts: int, partitions: int, seed: int = 1) -> Iterator[Keyed]:
    """Make the input: `count` framed payments of so many accounts."""
    rng = random.Random(seed)
    encode = encoder(IN_SCHEMA, IN_FRAME)
    for number in range(count):
        fields = payment(number, rng, accounts)
        account_id = fields["account_id"]
        yield slot_of(account_id) % partitions, account_id.encode(), encode(fields)


def turn(ring: list[int], at_us: int, amount_minor: int) -> tuple[int, int]:
    """Count a payment into its account's ring; return what the last five minutes hold."""
    minute = at_us // MINUTE_US
    place = minute % BUCKETS * 3
    if ring[place] == minute:
        ring[place + 1] += 1
        ring[place + 2] += amount_minor
    else:
        ring[place : place + 3] = minute, 1, amount_minor
    oldest = minute - BUCKETS
    count = total = 0
    for at in range(0, 3 * BUCKETS, 3):
        if ring[at] > oldest:
            count += ring[at + 1]
            total += ring[at + 2]
    return count, total


def velocity(fields: Fields, count: int, sum_minor: int) -> Fields:
    """Build the record that a payment causes."""
    return {
        "payment_id": fields["payment_id"],
        "account_id": fields["account_id"],
        "count": count,
        "sum_minor": sum_minor,
        "at_us": fields["requested_at_us"],
    }


def expected(inputs: Iterator[Keyed]) -> Iterator[Keyed]:
    """Say what must come out for this input, record by record: the model of all systems."""
    decode, encode = decoder(IN_SCHEMA), encoder(OUT_SCHEMA, OUT_FRAME)
    rings: dict[str, list[int]] = {}
    for partition, key, value in inputs:
        fields = decode(value)
        ring = rings.setdefault(fields["account_id"], [0] * 3 * BUCKETS)
        count, total = turn(ring, fields["requested_at_us"], fields["amount_minor"])
        yield partition, key, encode(velocity(fields, count, total))


def encoder(schema: Fields, frame: bytes) -> Callable[[Fields], bytes]:
    """Return the fastavro encoder of framed records."""
    parsed = fastavro.parse_schema(schema)
    write = fastavro.schemaless_writer

    def encode(fields: Fields) -> bytes:
        out = io.BytesIO()
        out.write(frame)
        write(out, parsed, fields)
        return out.getvalue()

    return encode


def decoder(schema: Fields) -> Callable[[bytes], Fields]:
    """Return the fastavro decoder of framed records."""
    parsed = fastavro.parse_schema(schema)
    read = fastavro.schemaless_reader

    def decode(data: bytes) -> Fields:
        body = io.BytesIO(data)
        body.seek(5)
        fields = read(body, parsed, None)
        assert isinstance(fields, dict)
        return fields

    return decode
