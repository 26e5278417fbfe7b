"""What a gateway remembers: bounded, and never against the processor's word."""

from __future__ import annotations

import json

import pytest

from gateways.auth import parse_keys, require
from gateways.kafka.reply import Reply, Share
from gateways.payments.recent import Recent
from gateways.payments.versions import Versions
from gateways.problems import KINDS, Refused
from gateways.settings import from_environment
from schemas import ids
from schemas.environment import SettingError
from tests.unit.gateway_rig import ALICE, BANK, BOB, KEY, OTHER_KEY, READER_KEY, keyring


def payment_id(key, home=ALICE):
    return ids.payment_id("demo", key, home)


def reply(resource_id, **fields):
    values = {
        "request_id": "r",
        "resource_id": resource_id,
        "identity": ids.identity_of(resource_id),
        "status": "settled",
        "version": 2,
        "reason": None,
        "detail": None,
        "conflict": False,
        "repeated": False,
        "occurred_at_us": 1,
    }
    return Reply(**values | fields)


def test_a_key_is_found_whichever_account_or_kind_it_was_used_with():
    recent = Recent(10)
    recent.accepted(payment_id("k"), "hash", b"")
    assert recent.find(payment_id("k", BOB)).resource_id == payment_id("k")
    opened = ids.account_id("demo", "k", "customer")
    recent.accepted(opened, "hash", b"")
    assert recent.find(ids.account_id("demo", "k", "external")).resource_id == opened
    assert recent.find(payment_id("k")).resource_id == payment_id("k")


def test_the_ids_used_last_are_kept():
    recent = Recent(2)
    recent.accepted(payment_id("a"), "", b"")
    recent.accepted(payment_id("b"), "", b"")
    assert recent.find(payment_id("a"))
    recent.accepted(payment_id("c"), "", b"")
    assert [bool(recent.find(payment_id(k))) for k in "abc"] == [True, False, True]


@pytest.mark.parametrize("fields", [{"conflict": True}, {"reason": "idempotency_key_reused"}])
def test_a_conflict_that_the_processor_reports_is_believed(fields):
    recent = Recent(2)
    recent.accepted(payment_id("k"), "ours", b"")
    recent.decided(reply(payment_id("k"), **fields))
    assert recent.find(payment_id("k")) is None


def test_an_older_outcome_does_not_replace_a_newer_one():
    recent = Recent(2)
    recent.accepted(payment_id("k"), "", b"")
    recent.decided(reply(payment_id("k"), version=3, status="refunded"))
    recent.decided(reply(payment_id("k"), version=2))
    assert recent.find(payment_id("k")).outcome.status == "refunded"


def test_another_payments_outcome_is_not_taken_for_ours():
    recent = Recent(2)
    recent.accepted(payment_id("k"), "", b"")
    recent.decided(reply(payment_id("k", BOB)))
    assert recent.find(payment_id("k")).outcome is None


def test_a_read_must_reach_every_share_that_was_told():
    versions = Versions(10)
    versions.learn((Share(ALICE, 0, 5), Share(ALICE, 3, 1)))
    versions.learn((Share(ALICE, 0, 4),))
    assert versions.reached(ALICE, {0: 5, 3: 1})
    assert not versions.reached(ALICE, {0: 4, 3: 1})
    assert not versions.reached(ALICE, {0: 9})
    assert versions.reached(BOB, {})


def test_versions_of_the_accounts_told_last_are_kept():
    versions = Versions(2)
    for account in (ALICE, BOB, BANK):
        versions.learn((Share(account, 0, 1),))
    assert [versions.reached(account, {}) for account in (ALICE, BOB, BANK)] == [True, False, False]


def test_a_key_is_known_by_its_hash_alone():
    assert keyring().identify(f"Bearer {KEY}".encode()).tenant == "demo"
    assert keyring().identify(f"bearer  {OTHER_KEY}".encode()).tenant == "other"


@pytest.mark.parametrize(
    "header",
    [None, b"", b"Bearer", b"Bearer ", b"Basic aHI=", b"Bearer x", b"Bearer " + b"x" * 600],
)
def test_an_unknown_key_is_401_with_a_challenge(header):
    with pytest.raises(Refused) as caught:
        keyring().identify(header)
    assert KINDS[caught.value.code].status == 401
    assert caught.value.headers.startswith(b"WWW-Authenticate: Bearer")


def test_a_missing_scope_is_403_and_named():
    principal = keyring().identify(f"Bearer {READER_KEY}".encode())
    require(principal, "payments:read")
    with pytest.raises(Refused) as caught:
        require(principal, "payments:write")
    assert b'scope="payments:write"' in caught.value.headers


KEY_ROW = {"id": "a", "sha256": "0" * 64, "tenant": "demo", "scopes": ["*"]}


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "0"},
        {"sha256": KEY},
        {"scopes": ["all"]},
        {"tenant": ""},
        {"tenant": "A b"},
        {"x": 1},
    ],
)
def test_a_wrong_key_file_is_told(change):
    parse_keys(json.dumps({"keys": [KEY_ROW]}).encode())
    with pytest.raises(SettingError):
        parse_keys(json.dumps({"keys": [KEY_ROW | change]}).encode())


ENVIRONMENT = {
    "HEADRACE_KAFKA": "127.0.0.1:9092",
    "HEADRACE_API_KEYS_FILE": "keys.json",
    "HEADRACE_WEBHOOK_SOURCES_FILE": "sources.json",
    "HEADRACE_VIEWS_READER_DSN": "postgresql://x",
}


def test_the_reply_partition_follows_from_the_index():
    settings = from_environment(ENVIRONMENT | {"HEADRACE_GATEWAY_INDEX": "6"})
    assert (settings.name, settings.reply_partition) == ("gateway-6", 2)


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_a_missing_setting_is_named(name):
    with pytest.raises(SettingError, match=name):
        from_environment({k: v for k, v in ENVIRONMENT.items() if k != name})
