"""How often a key may call: the bucket, its headers, and what a gateway answers past it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.auth import parse_keys
from gateways.problems import Refused
from gateways.quota import Bucket, Quota, Quotas
from schemas.environment import SettingError
from tests.unit.gateway_rig import KEY, READER_KEY, payment, running

QUOTA = Quota(2.0, 3)


def allowed(bucket, at_s):
    try:
        bucket.take(at_s)
    except Refused:
        return False
    return True


def test_a_burst_is_let_through_and_then_the_rate():
    bucket = Bucket(QUOTA, 3, 0.0)
    assert [allowed(bucket, 0.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [allowed(bucket, 0.4), allowed(bucket, 0.5), allowed(bucket, 0.5)] == [
        False,
        True,
        False,
    ]
    assert [allowed(bucket, 100.0) for _ in range(4)] == [True] * 3 + [False]


@given(
    st.lists(st.floats(0, 3), max_size=80), st.floats(0.1, 50), st.integers(1, 20)
)  # fmt: skip
def test_no_more_than_burst_and_rate_pass_in_any_time(pauses, per_s, burst):
    bucket, now, passed = Bucket(Quota(per_s, burst), burst, 0.0), 0.0, []
    for pause in pauses:
        now += pause
        if allowed(bucket, now):
            passed.append(now)
    for i, start in enumerate(passed):
        for j in range(i, len(passed)):
            assert j - i + 1 <= burst + per_s * (passed[j] - start) + 1e-6


def test_a_clock_that_goes_back_gives_no_tokens():
    bucket = Bucket(QUOTA, 1, 10.0)
    assert allowed(bucket, 10.0)
    assert not allowed(bucket, 5.0)
    assert not allowed(bucket, 10.0)


def test_the_headers_tell_policy_what_is_left_and_when_to_come_back():
    bucket = Bucket(QUOTA, 3, 0.0)
    assert bucket.take(0.0) == (b'RateLimit-Policy: "key";q=3;w=2\r\nRateLimit: "key";r=2;t=1\r\n')
    bucket.overdraw(9)
    with pytest.raises(Refused) as caught:
        bucket.take(0.0)
    assert caught.value.code == "rate_limited"
    assert caught.value.headers.startswith(b"Retry-After: 4\r\nRateLimit-Policy:")
    assert allowed(bucket, 4.0)


def test_each_key_has_one_bucket():
    quotas = Quotas()
    assert quotas.of("a", QUOTA, 0.0) is quotas.of("a", QUOTA, 5.0)
    assert quotas.of("a", QUOTA, 0.0) is not quotas.of("b", QUOTA, 0.0)


@pytest.mark.parametrize(
    "quota",
    [
        {"per_s": 0, "burst": 1},
        {"per_s": 1, "burst": 0},
        {"per_s": 1},
        {"per_s": 1, "burst": 1, "x": 1},
        {"per_s": -1, "burst": 1},
    ],
)
def test_a_quota_that_is_none_is_named(quota):
    key = {"id": "k", "sha256": "0" * 64, "tenant": "t", "scopes": ["*"], "quota": quota}
    with pytest.raises(SettingError, match="HEADRACE_API_KEYS_FILE"):
        parse_keys(json.dumps({"keys": [key]}).encode())


async def test_past_its_quota_a_key_gets_429_and_the_others_go_on():
    async with running(quota=Quota(0.001, 2)) as rig:
        first = await rig.pay("a")
        assert (first.status, first.headers["ratelimit"]) == (202, '"key";r=1;t=1000')
        assert first.headers["ratelimit-policy"] == '"key";q=2;w=2000'
        assert (await rig.pay("b", {"amount": 0})).status == 422
        refused = await rig.pay("c")
        assert (refused.status, refused.json["code"]) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) in range(990, 1_001)
        assert len(rig.written()) == 1, "nothing of it was written"
        other = await rig.call("GET", "/v1/payments", key=READER_KEY)
        assert (other.status, "ratelimit" in other.headers) == (200, False)
        for path in ("/healthz", "/openapi.json"):
            assert (await rig.call("GET", path, key=KEY)).status == 200


async def test_a_batch_takes_a_token_for_each_of_its_payments():
    async with running(quota=Quota(0.001, 10)) as rig:
        items = [payment() | {"idempotency_key": f"b{n}"} for n in range(40)]
        got = await rig.call("POST", "/v1/payments/batch", {"payments": items})
        assert (got.status, got.headers["ratelimit"]) == (202, '"key";r=0;t=40000')
        assert (await rig.pay("c")).status == 429
