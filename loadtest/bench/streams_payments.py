"""The payment task's load: requests, and the ledger's answers to the commands they cause. Pure.

Both topics are written before the task runs, so an answer is made here from the same payment as its
request: it names the command that the task must derive, and counts positions as the ledger would.
An answer's timestamp lies after its request's, as the task's inputs are merged by time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

from loadtest.bench.streams_records import account, slot_of
from schemas import ids, wire

REQUESTS: Final = "payments.requests"
ANSWERS: Final = "ledger.events"
STEP_US: Final = 5_000
"""Payments are this far apart in log time."""
ANSWERED_AFTER_US: Final = 250_000
WAITS_ONE_IN: Final = 5
"""One request in so many waits for its reply."""

Fields = dict[str, Any]
Timed = tuple[int, bytes, bytes, int]


class Load:
    """Makes `count` payments of so many accounts, the first at `starts_at_us`."""

    def __init__(self, count: int, accounts: int, partitions: int, starts_at_us: int) -> None:
        self.count = count
        self._accounts = accounts
        self._partitions = partitions
        self._starts_at_us = starts_at_us

    def requests(self) -> Iterator[Timed]:
        """Return the requests, in order of time."""
        encode = wire.encoder(REQUESTS)
        for fields in self._payments():
            at_ms = fields["received_at_us"] // 1000
            yield self._partition(fields), fields["home_account"].encode(), encode(fields), at_ms

    def answers(self) -> Iterator[Timed]:
        """Return the ledger's answers, in the order of their requests."""
        encode = wire.encoder(ANSWERS)
        positions = [0] * self._partitions
        for fields in self._payments():
            partition = self._partition(fields)
            positions[partition] += 1
            at_us = fields["received_at_us"] + ANSWERED_AFTER_US
            event = _answer(fields, partition, positions[partition], at_us)
            yield partition, fields["home_account"].encode(), encode(event), at_us // 1000

    def _payments(self) -> Iterator[Fields]:
        rng = random.Random(7)
        for number in range(self.count):
            source = account(int(rng.random() * self._accounts))
            destination = account(int(rng.random() * self._accounts))
            amount_minor = int(rng.random() * 50_000) + 1
            waits = number % WAITS_ONE_IN == 0
            at_us = self._starts_at_us + number * STEP_US
            yield _request(number, source, destination, amount_minor, at_us, waits=waits)

    def _partition(self, fields: Fields) -> int:
        return ids.partition_of(fields["slot"], self._partitions)


def _request(
    number: int, source: str, destination: str, amount_minor: int, at_us: int, *, waits: bool
) -> Fields:
    key = f"order-{number:012d}"
    payment_id = ids.payment_id("bench", key, source)
    return {
        "type": "payment.create",
        "request_id": f"req_{number:026d}",
        "resource_id": payment_id,
        "tenant": "bench",
        "idempotency_key": key,
        "identity": ids.identity_of(payment_id),
        "body_hash": f"{number:064x}",
        "slot": slot_of(source),
        "home_account": source,
        "received_at_us": at_us,
        "amount_minor": amount_minor,
        "currency": "EUR",
        "source_account": source,
        "destination_account": destination,
        "capture": "automatic",
        "description": "an order of the bench",
        "reference": key,
        "metadata": {"shop": "bench"},
        "context": {"ip": "192.0.2.1", "device": "bench"},
        "reply_partition": number % 4 if waits else None,
    }


def _answer(fields: Fields, partition: int, position: int, at_us: int) -> Fields:
    payment_id = fields["resource_id"]
    amount_minor = fields["amount_minor"]
    return {
        "type": "transfer.posted",
        "event_id": f"ledger.commands-{partition}-{position}-0",
        "command_id": ids.command_id(payment_id, "post", 1),
        "saga_id": payment_id,
        "tenant": fields["tenant"],
        "identity": fields["identity"],
        "body_hash": fields["body_hash"],
        "slot": fields["slot"],
        "home_account": fields["home_account"],
        "ledger_partition": partition,
        "position": position,
        "command_offset": position - 1,
        "booked_at_us": at_us,
        "effective_at_us": at_us,
        "transfer_id": payment_id,
        "entries": [
            _entry(fields["source_account"], partition, position, -amount_minor),
            _entry(fields["destination_account"], partition, position, amount_minor),
        ],
        "chain_hash": f"{position:064x}",
        "reference": fields["reference"],
        "metadata": fields["metadata"],
    }


def _entry(account_id: str, share: int, version: int, amount_minor: int) -> Fields:
    return {
        "account_id": account_id,
        "share": share,
        "version": version,
        "amount_minor": amount_minor,
        "currency": "EUR",
        "posted_minor": 10_000_000 + amount_minor,
        "held_minor": 0,
    }
