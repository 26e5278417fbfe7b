"""Webhook schemes: the table's rows against other implementations, and every way to fail."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from gateways.webhooks.schemes import SCHEMES
from gateways.webhooks.sources import parse_sources
from gateways.webhooks.verify import VERIFIED, Secret, key_of, verify
from schemas.environment import SettingError
from tests.unit.gateway_rig import SECRET

NOW_S = 1_800_000_000
NOW_US = NOW_S * 1_000_000
BODY = b'{"id":"evt_1","data":{"id":"evt_2"},"n":1.0}'
STANDARD = SCHEMES["standard-webhooks"]
KEY = key_of(STANDARD.key_form, SECRET)


def mac(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


def standard(body=BODY, event_id=b"msg_1", at_s=NOW_S, key=KEY, **changes):
    signature = base64.b64encode(mac(key, b"%b.%d.%b" % (event_id, at_s, body)))
    headers = {
        b"webhook-id": event_id,
        b"webhook-timestamp": b"%d" % at_s,
        b"webhook-signature": b"v1," + signature,
    }
    headers |= {name.replace("_", "-").encode(): value for name, value in changes.items()}
    return {name: value for name, value in headers.items() if value is not None}


def judge(headers, body=BODY, scheme=STANDARD, secrets=None, now_us=NOW_US):
    return verify(scheme, secrets or [Secret("s1", KEY)], headers, body, now_us)


def test_a_genuine_delivery_verifies_and_names_its_secret_and_event():
    verdict = judge(standard())
    assert (verdict.result, verdict.secret_id, verdict.event_id) == (VERIFIED, "s1", "msg_1")


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({"webhook_signature": None}, "signature_missing"),
        ({"webhook_signature": b""}, "signature_missing"),
        ({"webhook_signature": b"v2,AAAA"}, "signature_missing"),
        ({"webhook_signature": b"v1,"}, "signature_missing"),
        ({"webhook_signature": b"v1,!!not base64!!"}, "signature_mismatch"),
        ({"webhook_signature": b"v1,\xff\xfe"}, "signature_mismatch"),
        ({"webhook_signature": b"v1," + base64.b64encode(b"x" * 32)}, "signature_mismatch"),
        ({"webhook_timestamp": None}, "timestamp_missing"),
        ({"webhook_timestamp": b"1"}, "signature_mismatch"),
        ({"webhook_id": None}, "event_id_missing"),
        ({"webhook_id": b"msg_2"}, "signature_mismatch"),
    ],
)
def test_each_way_to_fail_has_its_verdict(changes, result):
    verdict = judge(standard(**changes))
    assert (verdict.result, verdict.secret_id) == (result, None)


def test_a_changed_body_does_not_verify():
    assert judge(standard(), BODY + b" ").result == "signature_mismatch"


@pytest.mark.parametrize("at_s", [NOW_S - 300, NOW_S + 300])
def test_a_time_at_the_tolerance_is_taken(at_s):
    assert judge(standard(at_s=at_s)).result == VERIFIED


@pytest.mark.parametrize("at_s", [NOW_S - 301, NOW_S + 301, 0])
def test_a_genuine_delivery_outside_the_tolerance_is_a_replay(at_s):
    verdict = judge(standard(at_s=at_s))
    assert (verdict.result, verdict.secret_id) == ("timestamp_outside_tolerance", None)


@pytest.mark.parametrize("stamp", [b"soon", b"1e9", b"-1", b"1" * 13, "٣".encode(), b" "])
def test_a_signed_time_that_is_no_number_is_malformed(stamp):
    signature = base64.b64encode(mac(KEY, b"msg_1." + stamp + b"." + BODY))
    headers = standard(webhook_timestamp=stamp, webhook_signature=b"v1," + signature)
    assert judge(headers).result == "timestamp_malformed"


def test_any_of_several_signatures_may_match():
    good = standard()[b"webhook-signature"]
    wrong = b"v1," + base64.b64encode(b"x" * 32)
    assert judge(standard(webhook_signature=b"v1a,zzz " + wrong + b" " + good)).result == VERIFIED


def test_only_so_many_signatures_are_tried():
    good = standard()[b"webhook-signature"]
    assert judge(standard(webhook_signature=b"v1,AAAA " * 16 + good)).result == "signature_mismatch"


def test_secrets_overlap_while_one_replaces_another():
    old = Secret("old", b"old key", until_us=NOW_US + 1)
    new = Secret("new", b"new key", from_us=NOW_US)
    by = {name: standard(key=key) for name, key in (("old", b"old key"), ("new", b"new key"))}
    assert judge(by["old"], secrets=[old, new]).secret_id == "old"
    assert judge(by["new"], secrets=[old, new]).secret_id == "new"
    later = NOW_US + 1
    assert judge(by["old"], secrets=[old, new], now_us=later).result == "signature_mismatch"
    earlier = NOW_US - 1
    assert judge(by["new"], secrets=[old, new], now_us=earlier).result == "signature_mismatch"


def test_without_a_valid_secret_nothing_verifies():
    ended = Secret("old", KEY, until_us=NOW_US)
    assert judge(standard(), secrets=[ended]).result == "no_valid_secret"


def test_a_claimed_event_id_that_is_no_text_gives_way_to_the_bodys_hash():
    for bad in (b"\xff", b"x" * 256, None):
        assert judge(standard(webhook_id=bad)).event_id == hashlib.sha256(BODY).hexdigest()


PAIRS = b"t=%d,v0=ignored,v1=%b"


def pairs(key=b"whsec_text", at_s=NOW_S):
    return PAIRS % (at_s, mac(key, b"%d." % at_s + BODY).hex().encode())


@pytest.mark.parametrize(
    ("name", "key", "headers", "event_id"),
    [
        ("stripe", b"whsec_text", {b"stripe-signature": pairs()}, "evt_1"),
        ("persona", b"whsec_text",
         {b"persona-signature": pairs(b"other") + b" " + pairs()}, "evt_2"),
        ("github", b"It's a Secret", {
            b"x-hub-signature-256": b"sha256=" + mac(b"It's a Secret", BODY).hex().encode(),
            b"x-github-delivery": b"d-1"}, "d-1"),
        ("adyen-platform", b"\x01\x02", {
            b"hmacsignature": base64.b64encode(mac(b"\x01\x02", BODY))}, "evt_1"),
    ],
)  # fmt: skip
def test_the_other_rows_verify_what_their_partner_signs(name, key, headers, event_id):
    scheme, secrets = SCHEMES[name], [Secret("s", key)]
    verdict = judge(headers, scheme=scheme, secrets=secrets)
    assert (verdict.result, verdict.event_id) == (VERIFIED, event_id)
    assert judge(headers, BODY + b" ", scheme, secrets).result == "signature_mismatch"
    assert judge({}, scheme=scheme, secrets=secrets).result == "signature_missing"


def test_githubs_published_example_verifies():
    headers = {b"x-hub-signature-256": b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c2"
               b"2c46f4379c8b043e17"}  # fmt: skip
    secrets = [Secret("s", b"It's a Secret to Everybody")]
    assert judge(headers, b"Hello, World!", SCHEMES["github"], secrets).result == VERIFIED


def test_a_pair_list_with_two_times_has_none():
    header = b"t=1," + pairs()
    verdict = judge({b"stripe-signature": header}, scheme=SCHEMES["stripe"],
                    secrets=[Secret("s", b"whsec_text")])  # fmt: skip
    assert verdict.result == "timestamp_missing"


headers_near_genuine = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from(["msg_1", "msg.2", "m"]),
        "shift_s": st.sampled_from([0, 100, -299, 299, -400, 400]),
        "signed_with": st.sampled_from(["ours", "other"]),
        "around": st.sampled_from(["{}", "v1,AAAA {}", "{} v1a,AAAA", "v2,AAAA {}"]),
        "change": st.sampled_from(["", "webhook-id", "webhook-timestamp", "webhook-signature"]),
    }
)


@given(headers_near_genuine, st.dictionaries(st.text(max_size=5), st.integers(), max_size=3))
def test_standard_webhooks_agrees_with_the_reference_implementation(case, document):
    body = json.dumps(document).encode()
    other = "whsec_" + base64.b64encode(b"another key, 24 bytes ok").decode()
    signer = Webhook(SECRET if case["signed_with"] == "ours" else other)
    now_s = int(time.time())
    at_s = now_s + case["shift_s"]
    stamp = base64.b64encode(
        mac(signer._whsecret, f"{case['event_id']}.{at_s}.".encode() + body)
    ).decode()
    headers = {
        "webhook-id": case["event_id"],
        "webhook-timestamp": str(at_s),
        "webhook-signature": case["around"].format(f"v1,{stamp}"),
    }
    headers.pop(case["change"], None)
    try:
        Webhook(SECRET).verify(body, headers)
        expected = True
    except WebhookVerificationError:
        expected = False
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    assert (judge(raw, body, now_us=now_s * 1_000_000).result == VERIFIED) is expected


def test_the_sources_file_says_who_may_deliver():
    row = {"id": "s1", "secret": SECRET, "not_before": None, "not_after": "2027-01-01T00:00:00Z"}
    text = {
        "sources": {"acme": {"scheme": "standard-webhooks", "tolerance_s": 60, "secrets": [row]}}
    }
    source = parse_sources(json.dumps(text).encode())["acme"]
    assert source.scheme.tolerance_s == 60
    assert source.secrets == (Secret("s1", KEY, None, 1_798_761_600_000_000),)


@pytest.mark.parametrize(
    "change",
    [
        {"scheme": "none"},
        {"secrets": [{"id": "s1", "secret": "whsec_*"}]},
        {"secrets": [{"id": "s1", "secret": "whsec_"}]},
        {"secrets": [{"id": "s1", "secret": SECRET, "not_after": "2027-01-01T00:00:00"}]},
        {"secrets": [{"id": "s1"}]},
    ],
)
def test_a_wrong_sources_file_is_told_without_its_secrets(change):
    row = {"scheme": "standard-webhooks", "secrets": []} | change
    with pytest.raises(SettingError) as caught:
        parse_sources(json.dumps({"sources": {"acme": row}}).encode())
    assert "whsec_" not in str(caught.value).replace("base64 after whsec_", "")
