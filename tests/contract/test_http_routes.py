"""The HTTP contract, route by route, over memory ports."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time

import msgspec
import pytest

from gateways.kafka.outbox import Bounds
from gateways.kafka.reply import Share
from gateways.payments import present
from gateways.payments.cursors import Place
from gateways.payments.payment_reads import ShownAccount, ShownPayment
from schemas import ids, wire
from tests.unit.gateway_rig import (
    ALICE,
    BANK,
    BOB,
    OTHER_KEY,
    READER_KEY,
    SECRET,
    TENANT,
    payment,
    request,
    running,
    until,
)

ACCOUNT = {"currency": "EUR", "kind": "customer", "name": "Ada", "metadata": {"team": "a"}}
FAST = Bounds(deadline_s=0.2, tick_s=0.02)


async def open_account(rig, key="acc", body=None, **headers):
    return await rig.call("POST", "/v1/accounts", body or ACCOUNT, Idempotency_Key=key, **headers)


def shown_payment(record, status="settled", version=2, **changes):
    view = msgspec.structs.replace(present.payment(record, None), status=status, **changes)
    return ShownPayment(view, version, Place(record["received_at_us"], record["resource_id"]))


def problem_of(got, status, code):
    assert got.status == status, got
    assert got.headers["content-type"] == "application/problem+json"
    assert got.json["code"] == code
    assert got.json["status"] == status
    assert got.json["request_id"] == got.headers["request-id"]
    assert got.json["type"] == f"urn:headrace:problem:{code}"
    return got.json


# Creating a payment.


async def test_202_means_durable():
    async with running() as rig:
        rig.link.fall_silent()
        asking = asyncio.create_task(rig.pay("k"))
        await until(lambda: rig.link.batches)
        await asyncio.sleep(0.05)
        assert not asking.done()
        rig.link.speak()
        got = await asking
        assert got.status == 202
        (record,) = rig.written()
        assert got.json["id"] == record["resource_id"] == ids.payment_id(TENANT, "k", ALICE)
        assert got.headers["location"] == f"/v1/payments/{record['resource_id']}"
        assert (got.json["status"], got.json["timeline"][0]["event"]) == ("accepted", "accepted")
        assert record["request_id"] == got.headers["request-id"]


async def test_the_record_carries_all_that_was_asked_and_its_trace():
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    asked = payment(
        description="Lunch", reference="r-1", metadata={"a": "b"}, context={"ip": "::1"}
    )
    async with running() as rig:
        got = await rig.pay("k", asked, traceparent=trace)
        ((place, (event,)),) = rig.link.log.items()
        record = wire.decode("payments.requests", event.value)
        slot = ids.slot_of(ALICE)
        assert place == ("payments.requests", slot % 4)
        assert (event.key, record["slot"], record["tenant"]) == (ALICE.encode(), slot, TENANT)
        assert (record["amount_minor"], record["currency"]) == (1_250, "EUR")
        assert (record["description"], record["reference"]) == ("Lunch", "r-1")
        assert (record["metadata"], record["context"]) == ({"a": "b"}, {"ip": "::1"})
        assert record["reply_partition"] is None
        assert event.at_ms == record["received_at_us"] // 1000
        ((name, value),) = event.headers
        assert name == "traceparent"
        assert value.decode().startswith(trace[:36])
        assert got.json["metadata"] == {"a": "b"}


async def test_a_payment_from_outside_is_at_home_with_the_customer():
    async with running() as rig:
        got = await rig.pay("k", payment(source={"account": BANK}))
        assert ids.slot_of(got.json["id"]) == ids.slot_of(BOB)


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [(None, 400, "idempotency_key_missing"), ("x" * 256, 400, "idempotency_key_invalid"),
     ("caf\xe9", 400, "idempotency_key_invalid")],
)  # fmt: skip
async def test_a_payment_needs_an_idempotency_key(key, status, code):
    async with running() as rig:
        headers = {} if key is None else {"Idempotency_Key": key}
        problem_of(await rig.call("POST", "/v1/payments", payment(), **headers), status, code)
        assert rig.written() == []


async def test_a_broken_rule_is_422_at_its_field_and_nothing_is_written():
    async with running() as rig:
        got = await rig.pay("k", payment(amount=0, capture="manual"))
        problem = problem_of(got, 422, "validation_failed")
        assert problem["errors"][0]["pointer"] == "/amount"
        got = await rig.pay("k", payment(expires_in=60))
        assert problem_of(got, 422, "validation_failed")["errors"][0]["pointer"] == "/expires_in"
        assert rig.written() == []


async def test_what_is_no_json_is_400_and_another_media_type_415():
    async with running() as rig:
        problem_of(await rig.pay("k", b"{", Content_Type="application/json"), 400, "json_malformed")
        for media_type in ("text/plain", "application/jsonx"):
            got = await rig.pay("k", b"{}", Content_Type=media_type)
            problem_of(got, 415, "media_type_unsupported")
        got = await rig.pay("k", b"{}")
        problem_of(got, 415, "media_type_unsupported")
        body = json.dumps(payment()).encode()
        got = await rig.pay("k", body, Content_Type="Application/JSON; charset=utf-8")
        assert got.status == 202


async def test_a_post_without_length_is_411_and_too_large_a_body_413():
    async with running() as rig:
        got = await rig.call("POST", "/v1/payments", Idempotency_Key="k")
        problem_of(got, 411, "length_required")
        got = await rig.pay("k", b"x" * (64 * 1024 + 1), Content_Type="application/json")
        problem_of(got, 413, "body_too_large")


async def test_without_a_known_key_401_and_without_the_scope_403():
    async with running() as rig:
        got = await rig.call("POST", "/v1/payments", payment(), key=None, Idempotency_Key="k")
        problem_of(got, 401, "unauthenticated")
        assert got.headers["www-authenticate"].startswith("Bearer")
        got = await rig.call("POST", "/v1/payments", payment(), key="wrong", Idempotency_Key="k")
        problem_of(got, 401, "unauthenticated")
        got = await rig.call("POST", "/v1/payments", payment(), key=READER_KEY, Idempotency_Key="k")
        problem_of(got, 403, "scope_missing")
        assert rig.written() == []


# Repeats.


async def test_a_repeat_gets_the_same_202_and_is_not_written_again():
    async with running() as rig:
        first = await rig.pay("k")
        again = await rig.pay("k", dict(reversed(payment().items())))
        assert (again.status, again.body) == (202, first.body)
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in first.headers
        assert len(rig.written()) == 1


@pytest.mark.parametrize(
    "other",
    [payment(amount=1), payment(source={"account": BOB}, destination={"account": ALICE})],
    ids=["another amount", "another home account"],
)
async def test_the_same_key_with_another_body_is_422_at_once(other):
    async with running() as rig:
        await rig.pay("k")
        problem_of(await rig.pay("k", other), 422, "idempotency_key_reused")
        assert len(rig.written()) == 1


async def test_a_repeat_in_flight_is_durable_before_it_is_answered_too():
    async with running() as rig:
        rig.link.fall_silent()
        asking = [asyncio.create_task(rig.pay("k")) for _ in range(2)]
        await until(lambda: rig.gateway.outbox.records == 2)
        rig.link.speak()
        first, second = await asyncio.gather(*asking)
        assert (first.status, second.status) == (202, 202)
        assert first.json["id"] == second.json["id"]


async def test_a_key_is_used_up_only_when_its_request_is_durable():
    async with running(bounds=FAST) as rig:
        rig.link.failing = True
        problem_of(await rig.pay("k"), 503, "broker_unavailable")
        rig.link.failing = False
        assert (await rig.pay("k", payment(amount=7))).status == 202


async def test_tenants_share_no_keys():
    async with running() as rig:
        first = await rig.pay("k")
        got = await rig.call("POST", "/v1/payments", payment(), key=OTHER_KEY, Idempotency_Key="k")
        assert got.status == 202
        assert got.json["id"] != first.json["id"]


# Waiting.


async def test_a_request_that_waits_gets_the_outcome():
    async with running() as rig:
        asking = asyncio.create_task(rig.pay("k", Prefer="wait=10"))
        await until(rig.written)
        (record,) = rig.written()
        assert record["reply_partition"] == 1
        rig.reply(record, "settled")
        got = await asking
        assert (got.status, got.json["status"]) == (201, "settled")
        assert got.headers["preference-applied"] == "wait=10"
        assert [step["event"] for step in got.json["timeline"]] == ["accepted", "settled"]


async def test_a_rejection_is_an_outcome_with_its_reason():
    async with running() as rig:
        asking = asyncio.create_task(rig.pay("k", Prefer="wait=10"))
        await until(rig.written)
        rig.reply(rig.written()[0], "rejected", reason="insufficient_funds", detail="3 short")
        got = await asking
        assert (got.status, got.json["status"]) == (201, "rejected")
        assert got.json["reason"] == {"code": "insufficient_funds", "detail": "3 short"}
        assert got.json["timeline"][-1]["reason"] == got.json["reason"]


async def test_when_the_time_is_over_the_durable_payment_is_202():
    async with running() as rig:
        got = await rig.pay("k", Prefer="wait=1")
        assert (got.status, got.json["status"]) == (202, "accepted")
        assert got.headers["preference-applied"] == "wait=1"
        rig.reply(rig.written()[0], "settled")
        again = await rig.pay("k", Prefer="wait=5")
        assert (again.status, again.json["status"]) == (200, "settled")
        assert again.headers["idempotent-replayed"] == "true"
        assert len(rig.written()) == 1


async def test_a_repeat_that_waits_for_an_unknown_outcome_is_written_again():
    async with running() as rig:
        await rig.pay("k")
        asking = asyncio.create_task(rig.pay("k", Prefer="wait=10"))
        await until(lambda: len(rig.written()) == 2)
        rig.reply(rig.written()[1], "settled", repeated=True)
        got = await asking
        assert (got.status, got.json["status"]) == (200, "settled")
        assert got.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    "fields", [{"conflict": True}, {"status": "rejected", "reason": "idempotency_key_reused"}]
)
async def test_a_conflict_that_only_the_processor_knows_is_422(fields):
    async with running() as rig:
        asking = asyncio.create_task(rig.pay("k", Prefer="wait=10"))
        await until(rig.written)
        rig.reply(rig.written()[0], **{"status": "settled", **fields})
        problem_of(await asking, 422, "idempotency_key_reused")
        assert (await rig.pay("k", payment(amount=7))).status == 202


async def test_a_reply_before_the_acknowledgement_answers_and_later_nothing_does():
    async with running(bounds=Bounds(deadline_s=5.0)) as rig:
        rig.link.fall_silent()
        asking = asyncio.create_task(rig.pay("k", Prefer="wait=10"))
        await until(lambda: rig.gateway.waiters._waiters)
        (lane,) = rig.gateway.outbox._lanes.values()
        rig.reply(wire.decode("payments.requests", lane.sending[0].value), "settled")
        assert (await asking).status == 201
        rig.link.speak()
        await until(rig.written)
        again = await rig.pay("k", Prefer="wait=1")
        assert (again.status, again.json["status"]) == (200, "settled")


async def test_an_unconfirmed_request_that_waits_is_503_and_not_answered_twice():
    async with running(bounds=FAST) as rig:
        rig.link.fall_silent()
        got = await rig.pay("k", Prefer="wait=10")
        problem = problem_of(got, 503, "broker_unavailable")
        assert "may still be accepted" in problem["detail"]
        assert got.headers["retry-after"] == "1"
        assert len(rig.gateway.waiters) == 0
        rig.link.speak()
        await until(rig.written)
        rig.reply(rig.written()[0], "settled")
        assert rig.gateway.server.in_flight == 0


async def test_a_wait_shorter_than_the_acknowledgement_still_ends_durable():
    async with running(bounds=Bounds(deadline_s=10.0)) as rig:
        rig.link.fall_silent()
        asking = asyncio.create_task(rig.pay("k", Prefer="wait=1"))
        await asyncio.sleep(1.3)
        assert not asking.done()
        rig.link.speak()
        assert (await asking).status == 202


async def test_nobody_waits_before_replies_can_be_heard():
    async with running() as rig:
        rig.replies.positioned = False
        problem_of(await rig.pay("k", Prefer="wait=1"), 503, "not_ready")
        assert (await rig.pay("k")).status == 202


async def test_a_reply_to_another_gateway_is_passed_over():
    async with running() as rig:
        await rig.pay("k")
        record = dict(rig.written()[0], request_id="req_of_another_gateway")
        rig.reply(record, "settled")
        assert (await rig.call("GET", f"/v1/payments/{record['resource_id']}")).status == 200


async def test_a_client_that_leaves_before_the_acknowledgement_has_paid_all_the_same():
    async with running() as rig:
        rig.link.fall_silent()
        client = await rig.connect()
        body = json.dumps(payment()).encode()
        await client.send(request("POST", "/v1/payments", body, Idempotency_Key="k",
                                  Content_Type="application/json",
                                  Authorization="Bearer hr_test"))  # fmt: skip
        await until(lambda: rig.gateway.outbox.records == 1)
        await client.close()
        rig.link.speak()
        await until(rig.written)
        again = await rig.pay("k")
        assert again.headers["idempotent-replayed"] == "true"
        assert len(rig.written()) == 1


# The broker gone.


async def test_a_broker_known_to_be_away_is_503_at_once():
    async with running() as rig:
        rig.link.away = True
        got = await rig.pay("k")
        problem_of(got, 503, "broker_unavailable")
        assert got.headers["retry-after"] == "1"
        got = await rig.call("GET", "/readyz", key=None)
        assert (got.status, got.json["ready"]) == (503, False)
        assert (await rig.call("GET", "/healthz", key=None)).status == 200
        rig.link.away = False
        assert (await rig.call("GET", "/readyz", key=None)).status == 200
        assert (await rig.pay("k")).status == 202


async def test_past_the_outbox_bound_requests_are_shed():
    async with running(bounds=Bounds(records_max=3)) as rig:
        rig.link.fall_silent()
        asking = [asyncio.create_task(rig.pay(f"k{n}")) for n in range(3)]
        await until(lambda: rig.gateway.outbox.records == 3)
        problem_of(await rig.pay("one more"), 503, "overloaded")
        rig.link.speak()
        assert [got.status for got in await asyncio.gather(*asking)] == [202] * 3


# Accounts.


async def test_opening_an_account_waits_by_default():
    async with running() as rig:
        asking = asyncio.create_task(open_account(rig))
        await until(rig.written)
        (record,) = rig.written()
        assert (record["type"], record["account_kind"]) == ("account.open", "customer")
        assert (
            record["resource_id"]
            == record["home_account"]
            == ids.account_id(TENANT, "acc", "customer")
        )
        rig.reply(record, "active")
        got = await asking
        assert got.status == 201
        assert got.json == {
            "id": record["resource_id"],
            "currency": "EUR",
            "kind": "customer",
            "status": "active",
            "name": "Ada",
            "limits": {"min_balance": None, "max_balance": None},
            "balances": {"posted": 0, "held": 0, "available": 0},
            "version": 0,
            "metadata": {"team": "a"},
            "created_at": got.json["created_at"],
            "frozen": {"debits": False, "credits": False},
        }
        assert "preference-applied" not in got.headers


async def test_an_account_may_be_asked_for_without_waiting():
    async with running() as rig:
        got = await open_account(rig, Prefer="respond-async")
        assert (got.status, got.json["status"]) == (202, "accepted")
        assert got.headers["preference-applied"] == "respond-async"
        assert rig.written()[0]["reply_partition"] is None


async def test_limits_reach_the_record():
    async with running() as rig:
        body = ACCOUNT | {"limits": {"min_balance": -500, "max_balance": 1_000}}
        await open_account(rig, body=body, Prefer="wait=0")
        (record,) = rig.written()
        assert (record["min_balance_minor"], record["max_balance_minor"]) == (-500, 1_000)


async def test_a_rejected_account_is_422_with_its_reason():
    async with running() as rig:
        asking = asyncio.create_task(open_account(rig))
        await until(rig.written)
        rig.reply(rig.written()[0], "rejected", reason="limits_not_allowed", detail="no")
        problem = problem_of(await asking, 422, "account_rejected")
        assert problem["errors"] == [{"pointer": "", "code": "limits_not_allowed", "detail": "no"}]


async def test_the_same_account_key_with_another_kind_is_422():
    async with running() as rig:
        await open_account(rig, Prefer="wait=0")
        got = await open_account(rig, body=ACCOUNT | {"kind": "external"}, Prefer="wait=0")
        problem_of(got, 422, "idempotency_key_reused")


# Reading.


async def test_a_payment_not_yet_in_the_view_is_shown_from_what_is_known_here():
    async with running() as rig:
        made = await rig.pay("k")
        path = made.headers["location"]
        got = await rig.call("GET", path)
        assert (got.status, got.json) == (200, made.json)
        record = rig.written()[0]
        rig.reply(record, "settled")
        rig.views.show_payment(TENANT, shown_payment(record, "accepted", version=1))
        assert (await rig.call("GET", path)).json["status"] == "settled"
        rig.views.show_payment(TENANT, shown_payment(record, "refunded", version=3))
        assert (await rig.call("GET", path)).json["status"] == "refunded"


async def test_a_payment_is_seen_by_its_tenant_alone():
    async with running() as rig:
        path = (await rig.pay("k")).headers["location"]
        problem_of(await rig.call("GET", path, key=OTHER_KEY), 404, "not_found")
        rig.views.show_payment(TENANT, shown_payment(rig.written()[0]))
        problem_of(await rig.call("GET", path, key=OTHER_KEY), 404, "not_found")


@pytest.mark.parametrize("name", ["pay_1", "x", ids.payment_id("demo", "unused", ALICE), ALICE])
async def test_an_unknown_payment_is_404(name):
    async with running() as rig:
        problem_of(await rig.call("GET", f"/v1/payments/{name}"), 404, "not_found")


async def test_an_account_is_read_again_until_it_shows_what_was_told():
    async with running() as rig:
        await open_account(rig, Prefer="wait=0")
        record = rig.written()[0]
        account = record["resource_id"]

        def show(version, posted):
            view = msgspec.structs.replace(
                present.account(record, None),
                status="active",
                version=version,
                balances=present.Balances(posted, 0, posted),
            )
            rig.views.show_account(TENANT, ShownAccount(view, {2: version}))

        show(1, 100)
        rig.reply(record, "active", shares=(Share(account, 2, 2),))
        asking = asyncio.create_task(rig.call("GET", f"/v1/accounts/{account}"))
        await asyncio.sleep(0.1)
        assert not asking.done()
        show(2, 250)
        got = await asking
        assert (got.status, got.json["balances"]["posted"], got.json["version"]) == (200, 250, 2)


async def test_an_account_whose_view_stays_behind_is_shown_as_it_is(monkeypatch):
    monkeypatch.setattr("gateways.payments.reads.FRESH_WITHIN_S", 0.1)
    async with running() as rig:
        made = await open_account(rig, Prefer="wait=0")
        account = made.json["id"]
        got = await rig.call("GET", f"/v1/accounts/{account}")
        assert (got.status, got.json["status"]) == (200, "accepted")
        problem_of(
            await rig.call("GET", f"/v1/accounts/{account}", key=OTHER_KEY), 404, "not_found"
        )
        problem_of(await rig.call("GET", f"/v1/accounts/{BOB}"), 404, "not_found")


async def test_the_list_goes_page_by_page_and_repeats_nothing():
    async with running() as rig:
        for n in range(7):
            await rig.pay(f"k{n}")
        for record in rig.written():
            rig.views.show_payment(TENANT, shown_payment(record))
        seen, path = [], "/v1/payments?limit=3"
        while path:
            got = await rig.call("GET", path)
            seen += [shown["id"] for shown in got.json["data"]]
            cursor = got.json["next_cursor"]
            path = cursor and f"/v1/payments?limit=3&cursor={cursor}"
        order = sorted(rig.written(), key=lambda r: (-r["received_at_us"], r["resource_id"]))
        assert seen == [record["resource_id"] for record in order]
        assert "timeline" not in got.json["data"][0]
        problem_of(await rig.call("GET", "/v1/payments?limit=0"), 400, "query_invalid")
        assert (await rig.call("GET", "/v1/payments", key=OTHER_KEY)).json["data"] == []


async def test_reads_are_503_while_the_views_are_away_and_payments_are_taken():
    async with running() as rig:
        rig.views.away = True
        path = (await rig.pay("k")).headers["location"]
        for at in (path, "/v1/payments", f"/v1/accounts/{BOB}"):
            problem_of(await rig.call("GET", at), 503, "views_unavailable")
        assert (await rig.call("GET", "/readyz", key=None)).status == 200


# Batches.


def item(key, **changes):
    return payment(**changes) | {"idempotency_key": key}


async def batch(rig, *items):
    return await rig.call("POST", "/v1/payments/batch", {"payments": list(items)})


async def test_a_batch_has_one_result_a_payment_in_order():
    async with running() as rig:
        await rig.pay("old")
        await rig.pay("other", payment(amount=3))
        got = await batch(
            rig, item("a"), item("b", amount=0), item("old"), item("other"), {"amount": 1},
            item("c", expires_in=60), item("d"), item("caf\xe9"),
        )  # fmt: skip
        assert got.status == 202
        results = got.json["results"]
        assert [r["status"] for r in results] == [202, 422, 202, 422, 422, 422, 202, 400]
        assert results[0]["payment"]["id"] == ids.payment_id(TENANT, "a", ALICE)
        assert results[1]["problem"]["errors"][0]["pointer"] == "/amount"
        assert results[2]["replayed"] is True
        assert results[3]["problem"]["code"] == "idempotency_key_reused"
        assert results[4]["problem"]["errors"][0]["code"] == "field_missing"
        assert [r["idempotency_key"] for r in rig.written()] == ["old", "other", "a", "d"]


async def test_two_payments_of_a_batch_with_one_key_are_one_payment():
    async with running() as rig:
        got = await batch(rig, item("a"), item("a"), item("a", amount=7), item("b"))
        results = got.json["results"]
        assert [r["status"] for r in results] == [202, 202, 422, 202]
        assert results[0]["payment"] == results[1]["payment"]
        assert results[1]["replayed"] is True
        assert results[2]["problem"]["code"] == "idempotency_key_reused"
        assert len(rig.written()) == 2


async def test_an_invalid_use_of_a_key_does_not_use_it_up():
    async with running() as rig:
        got = await batch(rig, item("a", expires_in=60), item("a"))
        assert [r["status"] for r in got.json["results"]] == [422, 202]


async def test_a_batch_is_1_to_1000_payments():
    async with running() as rig:
        problem_of(await batch(rig), 422, "validation_failed")
        problem_of(await batch(rig, *([item("a")] * 1_001)), 422, "validation_failed")
        got = await batch(rig, *[item(f"k{n}") for n in range(1_000)])
        assert {r["status"] for r in got.json["results"]} == {202}
        assert len({r["resource_id"] for r in rig.written()}) == 1_000


async def test_a_batch_of_which_nothing_is_taken_is_503():
    async with running(bounds=FAST) as rig:
        rig.link.away = True
        problem_of(await batch(rig, item("a"), item("b")), 503, "broker_unavailable")
        rig.link.away = False
        rig.link.failing = True
        problem_of(await batch(rig, item("a"), item("a")), 503, "broker_unavailable")
        rig.link.failing = False
        assert (await batch(rig, item("a"))).json["results"][0]["status"] == 202


# Webhooks.

BODY = b'{"type":"payout.paid",  "amount": 1}\n'


def signed(body=BODY, event_id="msg_1", at_s=None, secret=SECRET):
    key = base64.b64decode(secret.removeprefix("whsec_"))
    stamp = str(at_s or int(time.time()))
    mac = hmac.new(key, f"{event_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "Webhook_Id": event_id,
        "Webhook_Timestamp": stamp,
        "Webhook_Signature": f"v1,{base64.b64encode(mac).decode()}",
    }


async def deliver(rig, body=BODY, source="demo", **headers):
    return await rig.call("POST", f"/v1/webhooks/{source}", body, key=None, **headers)


async def test_a_genuine_delivery_is_kept_byte_for_byte_then_answered():
    async with running() as rig:
        rig.link.fall_silent()
        asking = asyncio.create_task(deliver(rig, X_OddCase="  a value", **signed()))
        await until(lambda: rig.gateway.outbox.records == 1)
        rig.link.speak()
        got = await asking
        assert got.status == 200
        (record,) = rig.written("webhooks.received")
        assert record["body"] == BODY
        assert record["body_hash"] == hashlib.sha256(BODY).hexdigest()
        assert (b"X-OddCase", b"a value") in [(h["name"], h["value"]) for h in record["headers"]]
        assert (record["verdict"], record["secret_id"]) == ("verified", "s1")
        assert (record["source"], record["partner_event_id"]) == ("demo", "msg_1")
        assert (record["path"], record["remote_address"]) == ("/v1/webhooks/demo", "127.0.0.1")
        assert record["delivery_id"] == got.headers["request-id"]
        (((_, partition), (event,)),) = rig.link.log.items()
        assert partition == ids.slot_of_key("demo:msg_1") % 4
        assert event.key == b"demo:msg_1"


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({}, "signature_missing"),
        (signed(b"another body"), "signature_mismatch"),
        (signed(secret="whsec_" + base64.b64encode(b"wrong").decode()), "signature_mismatch"),
        (signed(at_s=1_000_000_000), "timestamp_outside_tolerance"),
    ],
)
async def test_what_does_not_verify_is_kept_in_quarantine_then_401(headers, verdict):
    async with running() as rig:
        got = await deliver(rig, b"\x00\xff" if not headers else BODY, **headers)
        problem_of(got, 401, "webhook_unverified")
        assert rig.written("webhooks.received") == []
        (record,) = rig.written("webhooks.quarantine")
        assert record["verdict"] == verdict
        assert record["secret_id"] is None
        assert record["body"] == (BODY if headers else b"\x00\xff")


async def test_an_unknown_source_is_404_and_too_large_a_delivery_413():
    async with running() as rig:
        problem_of(await deliver(rig, source="nobody", **signed()), 404, "not_found")
        problem_of(await deliver(rig, b"x" * (1024 * 1024 + 1)), 413, "body_too_large")
        body = b"x" * (1024 * 1024)
        assert (await deliver(rig, body, **signed(body))).status == 200


async def test_a_delivery_is_503_while_the_broker_is_away():
    async with running(bounds=FAST) as rig:
        rig.link.fall_silent()
        problem_of(await deliver(rig, **signed()), 503, "broker_unavailable")
        problem_of(await deliver(rig), 503, "broker_unavailable")


# Watching.


async def test_metrics_show_requests_by_route_method_and_class():
    async with running() as rig:
        await rig.pay("k")
        await deliver(rig, **signed())
        text = (await rig.call("GET", "/metrics", key=None)).body.decode()
        for wanted in (
            'headrace_http_requests_total{method="POST",route="create_payment",status="2xx"}',
            'headrace_http_request_seconds_count{route="create_payment"}',
            "headrace_accept_to_ack_seconds_count",
            'headrace_webhook_verifications_total{result="verified",source="demo"}',
            'headrace_idempotency_outcomes_total{outcome="replayed"}',
            "headrace_outbox_records ",
            "headrace_http_in_flight ",
        ):
            assert wanted in text, wanted


async def test_a_drain_ends_the_waits_with_202():
    async with running() as rig:
        asking = asyncio.create_task(rig.pay("k", Prefer="wait=30"))
        await until(rig.written)
        rig.gateway.health.draining = True
        problem = (await rig.call("GET", "/readyz", key=None)).json
        assert problem["checks"][-1] == {"name": "serving", "ok": False, "detail": "draining"}
        rig.gateway.waiters.expire_all()
        assert (await asking).status == 202
        assert (await rig.pay("later", Prefer="wait=30")).status == 202
