"""Which records of `ledger.commands` mean something, and which can never be decided."""

from __future__ import annotations

import pytest

from ledger_writer.command import read_command
from ledger_writer.intake import read_records
from ledger_writer.port import Record
from ledger_writer.samples import account, open_account, reject, transfer
from schemas.errors import Poisoned
from schemas.wire import encode

ALICE, BOB = account("alice"), account("bob")
GOOD = transfer("k", (ALICE, BOB, 5))


def leg(**fields):
    return [{**GOOD["legs"][0], **fields}]


@pytest.mark.parametrize(
    "record",
    [
        {**GOOD, "type": "transfer.guess"},
        {**GOOD, "legs": []},
        {**GOOD, "legs": GOOD["legs"] * 65},
        {**GOOD, "legs": leg(amount_minor=0)},
        {**GOOD, "legs": leg(amount_minor=-5)},
        {**GOOD, "legs": leg(amount_minor=10**15 + 1)},
        {**GOOD, "home_account": "nobody"},
        {**GOOD, "slot": (GOOD["slot"] + 1) % 1024},
        {**GOOD, "attempt": 0},
        {**GOOD, "body_hash": "beef"},
        {**GOOD, "body_hash": "x" * 64},
        {**GOOD, "saga_id": ""},
        {**GOOD, "tenant": "a\0b"},
        {**reject("k", ALICE, "velocity_limit"), "reason": None},
        {**open_account(ALICE), "account_id": None},
        {**open_account(ALICE), "account_id": BOB},
        {**open_account(ALICE), "account_kind": "external"},
        {**open_account(ALICE), "currency": None},
    ],
)
def test_a_record_without_meaning_is_poisoned(record):
    with pytest.raises(Poisoned):
        read_command(record, 0, 0)


def test_what_can_be_decided_is_a_command_even_if_it_will_be_refused():
    for record in (
        GOOD,
        {**GOOD, "legs": leg(source="nobody", currency="dollars")},
        open_account(ALICE, currency="XYZ"),
        reject("k", ALICE, "velocity_limit"),
    ):
        assert read_command(record, 7, 3).offset == 7
    assert read_command(GOOD, 7, 3).recorded_at_us == 3_000


def test_poison_is_set_aside_and_the_next_offset_follows_the_last_record():
    values = [encode("ledger.commands", GOOD), b"\0\0\0", encode("ledger.commands", GOOD)[:-9], b""]
    offsets = [3, 5, 9, 14]
    records = [
        Record(offset, 1_000, b"key", value, (("traceparent", b"00-trace"),))
        for offset, value in zip(offsets, values, strict=True)
    ]
    intake = read_records(records)
    assert [command.offset for command in intake.commands] == [3]
    assert [record.offset for record, _ in intake.dead] == [5, 9, 14]
    assert intake.traceparents == {3: b"00-trace"}
    assert intake.next_offset == 15
