"""What a request must be: types, rules, canonical form, preferences, cursors."""

from __future__ import annotations

import hashlib
import json
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.gate import check_key
from gateways.kafka.trace import traceparent
from gateways.payments import cursors, requests, rules
from gateways.payments.bodies import AccountBody, BatchItem, PaymentBody
from gateways.payments.canonical import body_hash
from gateways.payments.cursors import PaymentQuery
from gateways.payments.lists import Place
from gateways.payments.prefer import wait_of
from gateways.payments.requests import Caller
from gateways.problems import KINDS, Refused
from schemas import ids, wire
from schemas.money import AMOUNT_MINOR_MAX
from tests.unit.gateway_rig import ALICE, BANK, BOB, payment

PAYMENT = msgspec.json.Decoder(PaymentBody)
ACCOUNT = msgspec.json.Decoder(AccountBody)
CALLER = Caller("demo", "req_1", 1_700_000_000_000_000)


def errors_of(body, decoder=PAYMENT, check=rules.check_payment):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refused) as caught:
        check(rules.decode(decoder, data))
    assert KINDS[caught.value.code].status in {400, 422}
    return {(error.pointer, error.code) for error in caught.value.errors}


def accepted(**changes):
    body = rules.decode(PAYMENT, json.dumps(payment(**changes)).encode())
    rules.check_payment(body)
    return body


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"amount": 0}, "/amount", "out_of_range"),
        ({"amount": -1}, "/amount", "out_of_range"),
        ({"amount": AMOUNT_MINOR_MAX + 1}, "/amount", "out_of_range"),
        ({"amount": 10**30}, "/amount", "out_of_range"),
        ({"amount": 1.0}, "/amount", "type_invalid"),
        ({"amount": True}, "/amount", "type_invalid"),
        ({"amount": "1"}, "/amount", "type_invalid"),
        ({"amount": None}, "/amount", "type_invalid"),
        ({"currency": "eur"}, "/currency", "currency_unknown"),
        ({"currency": "EUR\n"}, "/currency", "length_out_of_range"),
        ({"currency": "XXX"}, "/currency", "currency_unknown"),
        ({"source": {"account": "acct_1"}}, "/source/account", "length_out_of_range"),
        ({"source": {"account": ALICE[:-1] + "1"}}, "/source/account", "format_invalid"),
        ({"source": {"account": ALICE, "x": 1}}, "/source/x", "field_unknown"),
        ({"source": {}}, "/source/account", "field_missing"),
        ({"source": ALICE}, "/source", "type_invalid"),
        ({"destination": {"account": ALICE}}, "/destination/account", "same_account"),
        ({"capture": "later"}, "/capture", "value_unknown"),
        ({"expires_in": 60}, "/expires_in", "field_not_applicable"),
        ({"note": "x"}, "/note", "field_unknown"),
        ({"a/b~c": "x"}, "/a~1b~0c", "field_unknown"),
        ({"description": "x" * 501}, "/description", "length_out_of_range"),
        ({"description": "nul\0"}, "/description", "characters_invalid"),
        ({"reference": "4111 1111 1111 1111"}, "/reference", "card_number_refused"),
        ({"metadata": {"k" * 41: "v"}}, "/metadata", "length_out_of_range"),
        ({"metadata": {"": "v"}}, "/metadata", "length_out_of_range"),
        ({"metadata": {"k": "v" * 501}}, "/metadata", "length_out_of_range"),
        ({"metadata": {"k": 1}}, "/metadata", "type_invalid"),
        ({"metadata": {str(n): "v" for n in range(51)}}, "/metadata", "length_out_of_range"),
        ({"metadata": {"card": "4111111111111111"}}, "/metadata/card", "card_number_refused"),
        ({"metadata": {"5555555555554444": "x"}}, "/metadata/5555555555554444",
         "card_number_refused"),
        ({"context": {"card": "378282246310005"}}, "/context/card", "card_number_refused"),
        ({"context": {"Bad Key": "x"}}, "/context", "format_invalid"),
        ({"context": {"ip\n": "x"}}, "/context", "format_invalid"),
        ({"context": {f"k{n}": "v" for n in range(21)}}, "/context", "length_out_of_range"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_named_at_its_field(changes, pointer, code):
    assert (pointer, code) in errors_of(payment(**changes))


def test_every_broken_rule_is_named_at_once():
    body = payment(currency="XXX", expires_in=60, destination={"account": ALICE})
    assert errors_of(body) == {
        ("/currency", "currency_unknown"),
        ("/expires_in", "field_not_applicable"),
        ("/destination/account", "same_account"),
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"amount":01}',
        b'{"description":"\xff"}',
        b'{"description":"\\ud800"}',
        b'{"description":"a\nb"}',
        b"\xef\xbb\xbf{}",
        json.dumps(payment()).encode() + b" x",
    ],
)
def test_what_is_not_json_is_400(data):
    with pytest.raises(Refused) as caught:
        rules.decode(PAYMENT, data)
    assert caught.value.code == "json_malformed"


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "378282246310005",
        "3782 822463 10005",
        "30569309025904",
        "6011111111111117",
        "4222222222222",
        "see 1234 4111 1111 1111 1111 12/27",
    ],
)
def test_card_numbers_are_seen_in_their_usual_forms(number):
    assert rules.holds_card_number(number)


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",
        "1700000000000",
        "order 4111",
        "a4111111111111111b",
        "550e8400-e29b-41d4-a716-446655440000",
        "41111111111111111111",
        "+49 170 1234567",
        "",
    ],
)
def test_other_digits_are_not_card_numbers(text):
    assert not rules.holds_card_number(text)


@given(st.integers(10**14, 10**15 - 1), st.sampled_from("23456"))
def test_every_number_with_an_issuer_prefix_and_a_right_check_digit_is_seen(middle, prefix):
    stem = prefix + str(middle)[1:]
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in map(int, stem[::-2])]
    check = -(sum(doubled) + sum(map(int, stem[-2::-2]))) % 10
    assert rules.holds_card_number(f"{stem}{check}")
    assert not rules.holds_card_number(f"{stem}{(check + 1) % 10}")


def test_account_limits_must_not_cross():
    body = {"currency": "EUR", "kind": "customer", "limits": {"min_balance": 1, "max_balance": 0}}
    assert errors_of(body, ACCOUNT, rules.check_account) == {
        ("/limits/max_balance", "out_of_range")
    }


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb", "a\x7fb"])
def test_an_idempotency_key_is_1_to_255_printable_ascii(key):
    with pytest.raises(Refused) as caught:
        check_key(key)
    assert KINDS[caught.value.code].status == 400


def test_the_hash_sees_content_and_not_spelling():
    text = json.dumps(payment(metadata={"b": "2", "a": "ü"}, capture="automatic"), indent=1)
    shuffled = json.dumps(dict(reversed(payment(metadata={"a": "ü", "b": "2"}).items())))
    hashes = {
        body_hash("payment.create", rules.decode(PAYMENT, t.encode())) for t in (text, shuffled)
    }
    assert len(hashes) == 1


def test_the_canonical_form_is_what_the_documentation_says():
    body = accepted(metadata={"b": "2", "a": "ü"})
    form = (
        'payment.create\n{"amount":1250,"currency":"EUR",'
        f'"destination":{{"account":"{BOB}"}},'
        '"metadata":{"a":"ü","b":"2"},'
        f'"source":{{"account":"{ALICE}"}}}}'
    )
    assert body_hash("payment.create", body) == hashlib.sha256(form.encode()).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 1_251},
        {"currency": "USD"},
        {"destination": {"account": BANK}},
        {"description": "x"},
        {"reference": "x"},
        {"metadata": {"a": "b"}},
        {"context": {"ip": "::1"}},
    ],
)
def test_every_field_changes_the_hash(changes):
    assert body_hash("payment.create", accepted()) != body_hash(
        "payment.create", accepted(**changes)
    )


def test_a_batch_item_is_the_same_request_as_the_single_one():
    assert set(PaymentBody.__struct_fields__) | {"idempotency_key"} == set(
        BatchItem.__struct_fields__
    )


def test_a_payment_record_routes_by_its_home_account_and_fits_the_schema():
    record = requests.payment(accepted(source={"account": BANK}), "k", CALLER, 2)
    assert record["home_account"] == BOB
    assert record["slot"] == ids.slot_of(BOB) == ids.slot_of(record["resource_id"])
    read = wire.decode("payments.requests", wire.encode("payments.requests", record))
    assert read == {**read, **record}
    assert (read["reply_partition"], read["method"]) == (2, "internal")


def test_an_account_record_fits_the_schema():
    body = AccountBody("EUR", "external", name="Bank", metadata={"a": "b"})
    record = requests.account(body, "k", CALLER)
    read = wire.decode("payments.requests", wire.encode("payments.requests", record))
    assert (read["type"], read["account_kind"], read["resource_id"]) == (
        "account.open",
        "external",
        ids.account_id("demo", "k", "external"),
    )


@pytest.mark.parametrize(
    ("prefer", "default", "seconds", "applied"),
    [
        (None, 0, 0, b""),
        (None, 10, 10, b""),
        (b"wait=5", 0, 5, b"wait=5"),
        (b"wait=99999", 0, 30, b"wait=30"),
        (b'respond-async, wait="7"', 0, 7, b"wait=7"),
        (b"WAIT = 3; x", 0, 3, b"wait=3"),
        (b"wait=0", 10, 0, b"wait=0"),
        (b"respond-async", 10, 0, b"respond-async"),
        (b"wait=soon", 0, 0, b""),
        (b"wait=-1", 10, 10, b""),
        (b"return=minimal", 10, 10, b""),
    ],
)
def test_prefer_is_read_as_rfc_7240_says(prefer, default, seconds, applied):
    wait = wait_of(prefer, default)
    assert wait.seconds == seconds
    assert applied in wait.applied
    assert bool(wait.applied) == bool(applied)


GOOD = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_valid_trace_is_continued_with_a_new_parent():
    made = traceparent(GOOD)
    assert made[:36] == GOOD[:36]
    assert made[-3:] == b"-01"
    assert made != GOOD
    assert traceparent(b"cc" + GOOD[2:] + b"-what-comes-later")[:36] == GOOD[:36]


@pytest.mark.parametrize(
    "bad",
    [None, b"", GOOD[:-1], GOOD.upper(), b"ff" + GOOD[2:], b"00-" + b"0" * 32 + GOOD[35:],
     GOOD[:36] + b"0" * 16 + b"-01"],
)  # fmt: skip
def test_an_invalid_trace_starts_a_new_one(bad):
    made = traceparent(bad)
    assert len(made) == 55
    assert made[3:35] not in {GOOD[3:35], b"0" * 32}


def test_a_cursor_goes_there_and_back():
    query = PaymentQuery("demo", status="settled", limit=5)
    place = Place(1_700_000_000_000_001, ids.payment_id("demo", "k", ALICE))
    text = cursors.encode(place, query)
    assert cursors.parse("demo", f"status=settled&limit=7&cursor={text}").after == place


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=101", "/limit"),
        ("limit=%2B5", "/limit"),
        ("limit=٣", "/limit"),
        ("limit=99999999999999999999", "/limit"),
        ("status=done", "/status"),
        ("account=acct_1", "/account"),
        ("from=yesterday", "/from"),
        ("to=2026-01-01T00:00:00", "/to"),
        ("page=2", "/page"),
        ("limit=1&limit=2", "/limit"),
        ("cursor=xyz", "/cursor"),
        ("cursor=%F0%9F%92%A9", "/cursor"),
        ("limit", None),
        ("&".join("limit=1" for _ in range(30)), None),
    ],
)
def test_a_query_that_is_not_understood_names_its_parameter(query, pointer):
    with pytest.raises(Refused) as caught:
        cursors.parse("demo", query)
    assert caught.value.code == "query_invalid"
    assert [error.pointer for error in caught.value.errors] == ([pointer] if pointer else [])


@pytest.mark.parametrize(
    "other", ["status=rejected", "account=" + BOB, "from=2026-01-01T00:00:00Z"]
)
def test_a_cursor_belongs_to_its_filters(other):
    place = Place(1, ids.payment_id("demo", "k", ALICE))
    text = cursors.encode(place, PaymentQuery("demo"))
    with pytest.raises(Refused, match="other filters"):
        cursors.parse("demo", f"{other}&cursor={text}")


def test_a_cursor_belongs_to_its_tenant():
    place = Place(1, ids.payment_id("demo", "k", ALICE))
    text = cursors.encode(place, PaymentQuery("demo"))
    with pytest.raises(Refused):
        cursors.parse("other", f"cursor={text}")


@given(st.one_of(st.text(max_size=60), st.text("abcdefAB-_019=", max_size=60)))
def test_no_cursor_text_breaks_the_parser(text):
    with pytest.raises(Refused) as caught:
        cursors.parse("demo", urlencode({"cursor": text.encode("utf-8", "replace")}))
    assert caught.value.code == "query_invalid"


def test_times_are_read_to_the_microsecond():
    query = cursors.parse("demo", "from=2026-01-31T14:00:00%2B02:00&to=2026-01-31T12:00:00.123457Z")
    assert query.to_us % 1_000_000 == 123_457
    assert query.to_us - query.from_us == 123_457
