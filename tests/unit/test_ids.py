"""Ids are deterministic, carry their slot, and agree with Kafka's own partitioner."""

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from schemas import ids
from schemas.errors import Rejected

keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
kinds = st.sampled_from(["customer", "external"])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_values_of_kafkas_own_tests(data, expected):
    assert ids.murmur2(data) == expected & 0xFFFFFFFF


@given(keys, keys, kinds)
def test_an_account_id_hashes_to_the_slot_that_it_carries(tenant, key, kind):
    account = ids.account_id(tenant, key, kind)
    assert ids.is_account_id(account)
    assert ids.murmur2(account.encode()) % ids.SLOTS == ids.slot_of(account)
    assert ids.kind_of(account) == kind
    assert ids.is_guarded(account) == (kind == "customer")


@given(keys, st.sampled_from([1, 2, 4, 8, 64]))
def test_kafkas_default_partitioner_routes_an_account_as_we_do(key, partitions):
    account = ids.account_id("demo", key, "customer")
    everywhere = list(range(partitions))
    assert DefaultPartitioner()(account.encode(), everywhere, everywhere) == ids.partition_of(
        ids.slot_of(account), partitions
    )


@given(keys, keys)
def test_a_payment_id_has_the_slot_of_its_home_and_the_identity_of_its_key(key, other):
    homes = [ids.account_id("demo", name, "customer") for name in (other, other + "2")]
    first, second = (ids.payment_id("demo", key, home) for home in homes)
    assert [ids.slot_of(first), ids.slot_of(second)] == [ids.slot_of(home) for home in homes]
    assert ids.identity_of(first) == ids.identity_of(second)
    assert ids.is_payment_id(first)
    assert first == ids.payment_id("demo", key, homes[0])


@given(st.tuples(keys, keys), st.tuples(keys, keys))
def test_another_tenant_or_key_gives_another_identity(first, second):
    home = ids.account_id("demo", "home", "customer")
    same = ids.payment_id(*first, home) == ids.payment_id(*second, home)
    assert same == (first == second)


def test_an_account_and_a_payment_of_one_key_differ_in_identity():
    account = ids.account_id("demo", "key", "customer")
    assert ids.identity_of(ids.payment_id("demo", "key", account)) != ids.identity_of(account)


def test_the_home_account_is_the_guarded_side_and_the_debited_one_of_two():
    customer, other = (ids.account_id("demo", key, "customer") for key in "ab")
    external, bank = (ids.account_id("demo", key, "external") for key in "cd")
    assert ids.home_account(customer, other) == customer
    assert ids.home_account(customer, external) == customer
    assert ids.home_account(external, customer) == customer
    assert ids.home_account(external, bank) == external


@pytest.mark.parametrize(
    "text",
    ["", "acct_", "acct_x000_" + "a" * 26, "acct_c400_" + "a" * 26, "pay_000_" + "A" * 26]
    + ["acct_c000_" + "a" * 25, "acct_c000_" + "a" * 26 + "\n", "pay_00_" + "a" * 26],
)
def test_a_malformed_id_is_rejected(text):
    assert not ids.is_account_id(text)
    assert not ids.is_payment_id(text)
    with pytest.raises(Rejected, match="id_malformed"):
        ids.slot_of(text)


def test_ids_never_change():
    account = ids.account_id("demo", "key", "customer")
    assert account == "acct_c06f_nopetczbzapem3mvt7bf3fmbk3"
    assert ids.account_id("demo", "key", "external") == "acct_e06f_nopetczbzapem3mvt7bf3fma5e"
    assert ids.payment_id("demo", "key", account) == "pay_06f_h3tdmsh7j43fir7pxjmvqwxg2y"


@given(keys)
def test_one_key_for_two_kinds_of_account_is_one_identity_in_one_slot(key):
    customer, external = (ids.account_id("demo", key, kind) for kind in ("customer", "external"))
    assert ids.identity_of(customer) == ids.identity_of(external)
    assert ids.slot_of(customer) == ids.slot_of(external)
    assert customer != external


def test_command_and_event_ids_are_built_from_what_caused_them():
    assert ids.command_id("pay_001_x", "post", 1) == "pay_001_x/post/1"
    assert ids.event_id("ledger.commands", 3, 17, 0) == "ledger.commands-3-17-0"
