"""The compiled codecs of the ledger give what the pure ones give, bytes or error, for anything."""

from __future__ import annotations

import struct
import sys
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger_writer import codec, event, packing
from ledger_writer.command import read_command
from ledger_writer.decide import decide
from ledger_writer.model import GENESIS, Entry, Row, View
from ledger_writer.samples import account_on, open_account, reject, transfer
from schemas.errors import HeadraceError
from schemas.wire import encode

compiled = pytest.mark.skipif(codec.FAST is None, reason="built without a C compiler")

ALICE, BOB = account_on(0, 1), account_on(0, 1, skip=1)
BANK = account_on(0, 1, "external")
INT8S = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
WORDS = TEXTS | st.sampled_from(
    ["", 'say "x"', "back\\slash", "bell\a", "ünï", "pay_1_" + "a" * 26]
)
IDS = st.sampled_from([ALICE, BOB, BANK]) | WORDS

ERRORS = (HeadraceError, ArithmeticError, LookupError, TypeError, ValueError)


def told(function, *arguments):
    """What it returns, or what it raises."""
    try:
        return function(*arguments)
    except (*ERRORS, struct.error) as error:
        return type(error), str(error)


# -- commands ------------------------------------------------------------------------------------

_legs = st.lists(
    st.builds(
        lambda source, destination, amount_minor, currency: {
            "source": source,
            "destination": destination,
            "amount_minor": amount_minor,
            "currency": currency,
        },
        IDS,
        IDS,
        st.integers(-1, 10**15 + 1) | INT8S,
        st.sampled_from(["EUR", "USD", ""]) | WORDS,
    ),
    max_size=3,
)
_odd = {
    "type": st.sampled_from(["transfer.post", "transfer.reject", "account.open", "transfer.guess"]),
    "command_id": WORDS,
    "saga_id": WORDS | st.just("a\0b"),
    "step": st.sampled_from(["post", "reject"]) | WORDS,
    "attempt": st.integers(-1, 1) | st.integers(-(2**31), 2**31 - 1),
    "tenant": WORDS | st.just("a\0b"),
    "identity": WORDS | st.just("a\0b"),
    "body_hash": st.sampled_from(["ab" * 32, "AB" * 32, "ab " * 32, "xy" * 32, "ab"]) | WORDS,
    "slot": st.integers(0, 1023),
    "home_account": IDS,
    "transfer_id": st.none() | WORDS | st.just("a\0b"),
    "legs": _legs,
    "effective_at_us": st.none() | INT8S,
    "reason": st.none() | WORDS,
    "reference": st.none() | WORDS,
    "metadata": st.dictionaries(WORDS, WORDS, max_size=2),
    "dry_run": st.booleans(),
    "amount_minor": st.none() | st.integers(1, 5),
    "failed_leg": st.none() | st.integers(0, 3),
}
_good = st.sampled_from(
    [
        transfer("one", (ALICE, BOB, 5)),
        transfer("two", (BANK, ALICE, 10**15), (ALICE, BOB, 1), tenant="other"),
        transfer("three", (ALICE, BANK, 7), effective_at_us=-5),
        reject("four", ALICE, "velocity_limit"),
        open_account(ALICE),
    ]
)
_changes = st.dictionaries(st.sampled_from(sorted(_odd)), st.none(), max_size=2).flatmap(
    lambda names: st.fixed_dictionaries({name: _odd[name] for name in names})
)


@compiled
@given(_good, _changes, st.integers(0, 2**53), st.integers(0, 2**43))
def test_a_command_is_read_alike(good, changes, offset, timestamp_ms):
    value = encode("ledger.commands", good | changes)
    asked = value, offset, timestamp_ms
    assert told(codec.FAST.read, *asked) == told(codec.pure_read, *asked)


@compiled
@pytest.mark.parametrize("count", [0, 64, 65])
@pytest.mark.parametrize("attempt", [0, 2**31 - 1])
@pytest.mark.parametrize("amount_minor", [0, 1, 10**15, 10**15 + 1])
def test_a_command_at_a_bound_is_read_alike(count, attempt, amount_minor):
    record = transfer("many", *[(ALICE, BOB, amount_minor)] * max(1, count), attempt=attempt)
    value = encode("ledger.commands", record | {"legs": record["legs"][:count]})
    assert told(codec.FAST.read, value, 7, 3) == told(codec.pure_read, value, 7, 3)


@compiled
@given(_good, st.integers(0, 400), st.integers(0, 255), st.integers(0, 3))
def test_a_damaged_command_is_read_alike(good, place, byte, cut):
    value = bytearray(encode("ledger.commands", good))
    value[place % len(value)] = byte
    damaged = bytes(value[: len(value) - cut]), 7, 3
    assert told(codec.FAST.read, *damaged) == told(codec.pure_read, *damaged)


@compiled
@pytest.mark.parametrize("value", [None, b"", b"\0\0", b"\0\0\0\0\1"])
def test_what_is_no_command_is_read_alike(value):
    assert told(codec.FAST.read, value, 7, 3) == told(codec.pure_read, value, 7, 3)


# -- rows ----------------------------------------------------------------------------------------

_entries = st.lists(
    st.builds(Entry, INT8S, IDS, st.just("EUR") | WORDS, INT8S, INT8S, INT8S, INT8S), max_size=4
).map(tuple)
_hash = st.binary(min_size=32, max_size=32)


def _row(repeats):
    return st.builds(
        Row,
        st.integers(0, 1023),
        *(INT8S, INT8S, INT8S, INT8S),
        *(WORDS, WORDS, WORDS, WORDS),
        st.integers(1, 2**31 - 1),
        WORDS | st.just("a" * 26),
        _hash,
        IDS,
        st.none() | WORDS,
        st.none() | st.sampled_from(sorted(event.DETAILS)) | WORDS,
        st.none() | st.integers(0, 63),
        repeats,
        st.none() | st.sampled_from(['{"reference":"ü"}', '{"dry_run":true}']),
        _entries,
        _hash,
    )


ROWS = _row(st.none() | _row(st.none()))
DECIDED = decide(
    View(0, 1, 1, 0, GENESIS, {}, {}, set()),
    [
        read_command(record, 3 * offset, 1_700_000_000_000 + offset)
        for offset, record in enumerate(
            [
                *(open_account(ALICE), open_account(BOB), open_account(BANK)),
                transfer("fund", (BANK, ALICE, 100)),
                transfer("pay", (ALICE, BOB, 60)),
                transfer("pay", (ALICE, BOB, 60)),
                transfer("poor", (ALICE, BOB, 60)),
                transfer("legs", (ALICE, BOB, 1), (BOB, BANK, 2), effective_at_us=-1),
            ]
        )
    ],
).rows


def examples(test):
    for row in DECIDED:
        test = example(row)(test)
    return test


@compiled
@examples
@given(ROWS)
def test_a_row_is_told_alike(row):
    assert told(codec.FAST.event_bytes, row) == told(event.event_bytes, row)


@compiled
@example(DECIDED)
@given(st.lists(ROWS, max_size=3))
def test_rows_are_packed_alike(rows):
    assert told(codec.FAST.packed_rows, 77, rows) == told(codec.pure_packed_rows, 77, rows)


@compiled
@given(st.lists(INT8S | st.integers(-(2**70), 2**70), max_size=9))
def test_numbers_are_packed_alike(numbers):
    assert told(codec.FAST.packed_numbers, numbers) == told(packing.packed_numbers, numbers)


# -- which are used ------------------------------------------------------------------------------


def test_the_stamp_is_that_of_todays_sources():
    written = codec.STAMP_FILE.read_text()
    assert written == f'STAMP = "{codec.stamp()}"\n', (
        "a rule that fast.pyx repeats may have changed: make it follow, then"
        " run `python -m ledger_writer.codec` and build (deploy/setup.sh)"
    )


def test_compiled_codecs_of_other_sources_are_not_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "ledger_writer.fast", SimpleNamespace(STAMP="older"))
    with pytest.warns(RuntimeWarning, match="built from other sources"):
        assert codec._compiled() is None


@compiled
def test_the_compiled_codecs_are_used():
    assert codec.read is codec.FAST.read
    assert codec.packed_rows is codec.FAST.packed_rows
    assert codec.packed_numbers is codec.FAST.packed_numbers
    assert codec.event_bytes is codec.FAST.event_bytes
