"""Rows: stored and restored without loss, sealed by the chain, told as events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256

import pytest
from msgspec.structs import replace

from ledger_writer.chain import canonical
from ledger_writer.columns import restored, stored
from ledger_writer.command import read_command
from ledger_writer.decide import decide
from ledger_writer.event import event_bytes, event_of
from ledger_writer.identity import claim_key
from ledger_writer.memory import COLUMN_NAMES
from ledger_writer.model import GENESIS, Entry, Row, View
from ledger_writer.samples import account_on, open_account, reject, transfer
from ledger_writer.verify import Balance, Verifier
from schemas.wire import decode

ALICE, BOB = account_on(0, 1), account_on(0, 1, skip=1)
BANK = account_on(0, 1, "external")
METADATA = {"z": "1", "a": "2"}
DECISION = decide(
    View(0, 1, 1, 0, GENESIS, {}, {}, set()),
    [
        read_command(record, 3 * offset, 1_700_000_000_000 + offset)
        for offset, record in enumerate(
            [
                open_account(ALICE, account_name="Alice’s", min_balance_minor=-5),
                open_account(BOB),
                open_account(BANK),
                transfer("fund", (BANK, ALICE, 100), reference="ref", metadata=METADATA),
                transfer("pay", (ALICE, BOB, 60), effective_at_us=5),
                transfer("pay", (ALICE, BOB, 60), effective_at_us=5),
                transfer("poor", (ALICE, BOB, 60), transfer_id="tr_1"),
                transfer("poor", (ALICE, BOB, 60), transfer_id="tr_1"),
                transfer("pay", (ALICE, BOB, 61)),
                reject("slow", BOB, "velocity_limit"),
                transfer("legs", (ALICE, BOB, 1), (BOB, BANK, 2), identity="a" * 26),
                open_account(ALICE, identity="b" * 26),
            ]
        )
    ],
)
ROWS = DECISION.rows
NAMES = {a.account_no: (a.account_id, a.currency) for a in DECISION.opened}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.position}-{row.type}-{row.reason}")
def test_a_row_comes_back_from_its_columns_as_it_was(row):
    line = dict(zip(COLUMN_NAMES, stored(row), strict=True)) | {"partition": row.partition}
    back = restored(line, NAMES, row.repeats)
    assert back == row
    assert event_bytes(back) == event_bytes(row)


def test_what_follows_from_the_rest_is_not_stored():
    line = dict(zip(COLUMN_NAMES, stored(ROWS[4]), strict=True))
    assert (line["identity"], line["home_account"], line["transfer_id"]) == (None, None, "")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.position}-{row.type}-{row.reason}")
def test_the_canonical_bytes_are_plain_json_that_anyone_can_make(row):
    fields = json.loads(canonical(row))
    again = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    assert again == canonical(row)


def test_each_row_seals_all_rows_before_it():
    before = GENESIS
    for row in ROWS:
        before = sha256(before + canonical(row)).digest()
        assert row.chain_hash == before


def test_an_event_tells_what_was_posted():
    event = decode("ledger.events", event_bytes(ROWS[4]))
    assert event == event_of(ROWS[4])
    assert event["type"] == "transfer.posted"
    assert event["event_id"] == "ledger.commands-0-12-0"
    assert event["effective_at_us"] == 5
    told = [(e["account_id"], e["amount_minor"], e["posted_minor"]) for e in event["entries"]]
    assert told == [(ALICE, -60, 40), (BOB, 60, 60)]
    assert {entry["share"] for entry in event["entries"]} == {0}
    assert not event["repeated"]


def test_a_repeated_event_tells_the_first_outcome_at_its_own_position():
    first, again = event_of(ROWS[4]), event_of(ROWS[5])
    differs = {name for name in first if first[name] != again[name]}
    assert differs == {
        "event_id",
        "position",
        "command_offset",
        "booked_at_us",
        "repeated",
        "chain_hash",
    }
    assert event_of(ROWS[7])["reason"] == "insufficient_funds"


def test_an_event_of_an_opened_account_describes_it():
    event = event_of(ROWS[0])
    assert event["type"] == "account.opened"
    assert (event["account_id"], event["currency"], event["account_kind"]) == (
        ALICE,
        "EUR",
        "customer",
    )
    assert (event["account_name"], event["min_balance_minor"]) == ("Alice’s", -5)


def test_reference_and_metadata_come_back_in_the_event():
    event = event_of(ROWS[3])
    assert event["reference"] == "ref"
    assert list(event["metadata"].items()) == [("a", "2"), ("z", "1")]


def test_keys_of_opening_commands_are_their_identities():
    pay, again = transfer("k", (ALICE, BOB, 1)), reject("k", ALICE, "velocity_limit")
    keys = {claim_key(read_command(record, 0, 0)) for record in (pay, again, {**pay, "attempt": 2})}
    assert len(keys) == 1


@dataclass
class Tables:
    """What the verifier compares with."""

    shares: dict[tuple[int, int], Balance]

    @classmethod
    def of(cls) -> Tables:
        shares = {
            (each.account.account_no, 0): Balance(each.posted_minor, each.held_minor, each.version)
            for each in DECISION.changed
        }
        return cls(shares)


def problems(rows: list[Row], shares: dict[tuple[int, int], Balance] | None = None) -> list[int]:
    """Return the positions at which something was found."""
    verifier = Verifier()
    found = [finding for row in rows for finding in verifier.take(0, row)]
    accounts = {account.account_no: account for account in DECISION.opened}
    found += verifier.close([], Tables.of().shares if shares is None else shares, accounts)
    return [finding.position for finding in found]


def test_the_verifier_finds_nothing_in_what_was_decided():
    assert problems(ROWS) == []


@pytest.mark.parametrize("name", sorted(set(Row.__struct_fields__) - {"repeats", "entries"}))
@pytest.mark.parametrize("at", [3, 5, 9])
def test_a_change_of_any_field_of_any_row_is_found_there(name, at):
    value = getattr(ROWS[at], name)
    changed: object
    match value:
        case int():
            changed = value + 1
        case bytes():
            changed = bytes([value[0] ^ 1]) + value[1:]
        case _:
            changed = f"{value or ''}x"
    rows = list(ROWS)
    rows[at] = replace(rows[at], **{name: changed})
    assert problems(rows)[0] in {ROWS[at].position, ROWS[at].position + 1}


@pytest.mark.parametrize("name", sorted(set(Entry.__struct_fields__) - {"account_no"}))
def test_a_change_of_any_field_of_an_entry_is_found_there(name):
    entry = ROWS[4].entries[1]
    value = getattr(entry, name)
    changed = replace(entry, **{name: BANK if isinstance(value, str) else value + 1})
    rows = list(ROWS)
    rows[4] = replace(rows[4], entries=(rows[4].entries[0], changed))
    assert problems(rows)[0] == rows[4].position


def test_a_row_removed_or_two_rows_swapped_are_found():
    assert problems(ROWS[:6] + ROWS[7:])[0] == ROWS[7].position
    swapped = [*ROWS[:6], ROWS[7], ROWS[6], *ROWS[8:]]
    assert problems(swapped)[0] == ROWS[7].position


def test_a_balance_that_its_entries_do_not_say_is_found():
    shares = Tables.of().shares
    key = next(iter(shares))
    richer = Balance(shares[key].posted_minor + 1, 0, shares[key].version)
    assert problems(ROWS, {**shares, key: richer})
    assert problems(ROWS, {**shares, (999, 0): Balance(1, 0, 1)})
