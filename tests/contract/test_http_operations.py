"""What is done to payments and accounts, route by route, over memory ports."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from gateways.kafka.reply import Share, Step
from gateways.payments import present, times
from gateways.payments.cursors import Place
from gateways.payments.payment_reads import ShownAccount, ShownPayment
from schemas import ids
from tests.contract.test_http_routes import problem_of
from tests.unit.gateway_rig import ALICE, BANK, OTHER_KEY, TENANT, payment, running, until

AT_US = 1_800_000_000_000_000
OTHER = {"Authorization": f"Bearer {OTHER_KEY}"}


@pytest.fixture
def impatient(monkeypatch):
    """No read waits for a view that stays behind."""
    monkeypatch.setattr("gateways.payments.reads.FRESH_WITHIN_S", 0.0)


async def authorized(rig, key="p", **changes):
    """Make a payment and show it as authorized; return its id."""
    got = await rig.pay(key, payment(capture="manual", **changes))
    assert got.status == 202
    record = rig.written()[-1]
    steps = (Step(record["received_at_us"], "accepted"), Step(AT_US, "authorized"))
    rig.reply(record, "authorized", timeline=steps, expires_at_us=AT_US + 1)
    return got.json["id"]


def shown_account(account_id=ALICE, **changes):
    kind = "customer" if account_id == ALICE else "external"
    record = {"resource_id": account_id, "currency": "EUR", "account_kind": kind,
              "received_at_us": AT_US, "metadata": {}}  # fmt: skip
    view = present.account(record, None)
    return ShownAccount(msgspec.structs.replace(view, **{"status": "active"} | changes), {})


async def do(rig, path, key="o", body=None, **headers):
    return await rig.call("POST", path, body, Idempotency_Key=key, **headers)


async def replied(rig, count, work, status, **fields):
    """Run a request that waits, and answer its record."""
    asking = asyncio.create_task(work)
    await until(lambda: len(rig.written()) == count)
    rig.reply(rig.written()[-1], status, **fields)
    return await asking


async def test_an_authorized_payment_shows_what_is_held_and_until_when():
    async with running() as rig:
        payment_id = await authorized(rig, expires_in=60)
        got = await rig.call("GET", f"/v1/payments/{payment_id}")
        assert (got.json["status"], got.json["authorized_amount"]) == ("authorized", 1_250)
        assert got.json["expires_at"] == times.timestamp(AT_US + 1)
        assert rig.written()[0]["expires_in_s"] == 60


@pytest.mark.parametrize(
    ("verb", "kind", "body", "amount"),
    [("capture", "payment.capture", {"amount": 5}, 5), ("capture", "payment.capture", {}, None),
     ("void", "payment.void", {}, None), ("refunds", "payment.refund", {"amount": 7}, 7)],
)  # fmt: skip
async def test_an_operation_is_written_for_the_payments_home(verb, kind, body, amount):
    async with running() as rig:
        payment_id = await authorized(rig, source={"account": BANK})
        got = await do(rig, f"/v1/payments/{payment_id}/{verb}", body=body)
        assert (got.status, got.json["id"]) == (202, payment_id)
        assert got.headers["location"] == f"/v1/payments/{payment_id}"
        record = rig.written()[-1]
        assert (record["type"], record["target_id"]) == (kind, payment_id)
        assert record["resource_id"] == payment_id
        assert record["home_account"] == rig.written()[0]["home_account"]
        assert record["slot"] == ids.slot_of(payment_id)
        assert record["identity"] == ids.operation_identity(TENANT, "o")
        assert (record["amount_minor"], record["reply_partition"]) == (amount, None)


async def test_a_body_may_be_left_out_and_must_be_right_if_there_is_one():
    async with running() as rig:
        payment_id = await authorized(rig)
        got = await do(rig, f"/v1/payments/{payment_id}/capture", "o1")
        assert got.status == 202
        got = await do(rig, f"/v1/payments/{payment_id}/capture", "o2", b"{}")
        problem_of(got, 415, "media_type_unsupported")
        got = await do(rig, f"/v1/payments/{payment_id}/capture", "o3", {"amount": 0})
        assert problem_of(got, 422, "validation_failed")["errors"][0]["pointer"] == "/amount"
        got = await do(rig, f"/v1/payments/{payment_id}/void", "o4", {"amount": 1})
        assert problem_of(got, 422, "validation_failed")["errors"][0]["code"] == "field_unknown"
        got = await rig.call("POST", f"/v1/payments/{payment_id}/void", {})
        problem_of(got, 400, "idempotency_key_missing")
        assert len(rig.written()) == 2


async def test_who_waits_gets_the_payment_as_it_stands_after_it():
    async with running() as rig:
        payment_id = await authorized(rig, description="Lunch")
        steps = (Step(1, "accepted"), Step(2, "authorized"), Step(3, "settled"))
        path = f"/v1/payments/{payment_id}/capture"
        work = do(rig, path, body={}, Prefer="wait=10")
        got = await replied(
            rig, 2, work, "settled", version=3, timeline=steps, captured_minor=1_250
        )
        assert (got.status, got.json["status"]) == (200, "settled")
        assert (got.json["captured_amount"], got.json["description"]) == (1_250, "Lunch")
        assert [step["event"] for step in got.json["timeline"]] == [
            "accepted", "authorized", "settled"]  # fmt: skip
        assert got.headers["preference-applied"] == "wait=10"
        assert rig.written()[-1]["reply_partition"] == 1
        again = await do(rig, path, body={}, Prefer="wait=10")
        assert (again.status, again.headers["idempotent-replayed"]) == (200, "true")
        assert again.json == got.json
        assert len(rig.written()) == 2, "a repeat whose outcome is known is not written again"
        got = await rig.call("GET", f"/v1/payments/{payment_id}")
        assert got.json["captured_amount"] == 1_250, "the payment's own read knows it as well"


async def test_what_the_view_knows_better_than_the_reply_is_shown():
    async with running() as rig:
        payment_id = await authorized(rig)
        view = msgspec.structs.replace(present.payment(rig.written()[0], None), status="refunded")
        rig.views.show_payment(TENANT, ShownPayment(view, 9, Place(AT_US, payment_id)))
        work = do(rig, f"/v1/payments/{payment_id}/capture", Prefer="wait=10")
        got = await replied(rig, 2, work, "settled", version=3)
        assert (got.status, got.json["status"]) == (200, "refunded")


async def test_a_refusal_is_422_with_the_ledgers_code_and_leaves_the_payment():
    async with running() as rig:
        payment_id = await authorized(rig)
        path = f"/v1/payments/{payment_id}/capture"
        work = do(rig, path, body={"amount": 9_999}, Prefer="wait=10")
        got = await replied(
            rig, 2, work, "authorized", version=3, reason="amount_exceeds_hold", detail="Too much."
        )
        problem = problem_of(got, 422, "operation_refused")
        assert (problem["errors"][0]["code"], problem["detail"]) == (
            "amount_exceeds_hold", "Too much.")  # fmt: skip
        again = await do(rig, path, body={"amount": 9_999}, Prefer="wait=10")
        problem_of(again, 422, "operation_refused")
        got = await rig.call("GET", f"/v1/payments/{payment_id}")
        assert (got.json["status"], got.json["reason"]) == ("authorized", None)


async def test_a_payment_that_the_processor_does_not_know_is_404():
    async with running() as rig:
        payment_id = await authorized(rig)
        work = do(rig, f"/v1/payments/{payment_id}/void", Prefer="wait=10")
        got = await replied(
            rig, 2, work, "refused", version=0, timeline=(), reason="payment_not_found"
        )
        problem_of(got, 404, "not_found")


async def test_only_ones_own_payments_and_accounts_can_be_acted_upon():
    async with running() as rig:
        payment_id = await authorized(rig)
        rig.views.show_account(TENANT, shown_account())
        for path in (f"/v1/payments/{payment_id}/void", f"/v1/accounts/{ALICE}/freeze"):
            problem_of(await do(rig, path, **OTHER), 404, "not_found")
        for path in ("/v1/payments/pay_1/void", "/v1/accounts/x/close"):
            problem_of(await do(rig, path), 404, "not_found")
        assert len(rig.written()) == 1


async def test_one_key_is_one_operation():
    async with running() as rig:
        one, two = await authorized(rig, "p1"), await authorized(rig, "p2")
        first = await do(rig, f"/v1/payments/{one}/capture", body={"amount": 5})
        again = await do(rig, f"/v1/payments/{one}/capture", body={"amount": 5})
        assert (first.status, again.status) == (202, 202)
        assert again.headers["idempotent-replayed"] == "true"
        for path, body in (
            (f"/v1/payments/{one}/capture", {"amount": 6}),
            (f"/v1/payments/{two}/capture", {"amount": 5}),
            (f"/v1/payments/{one}/refunds", {"amount": 5}),
        ):
            problem_of(await do(rig, path, body=body), 422, "idempotency_key_reused")
        assert len(rig.written()) == 3
        got = await rig.pay("o")
        assert got.status == 202, "an operation's key is not that of a payment"


@pytest.mark.parametrize(
    ("verb", "body", "flags", "told", "status"),
    [
        ("freeze", {}, (True, True), (True, True), "frozen"),
        ("freeze", {"debits": True}, (True, None), (True, False), "frozen"),
        ("unfreeze", {"credits": True}, (None, True), (False, False), "active"),
        ("close", {}, (None, None), (False, False), "closed"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("impatient")
async def test_an_account_is_answered_as_it_stands_after_it(verb, body, flags, told, status):
    async with running() as rig:
        rig.views.show_account(TENANT, shown_account())
        work = do(rig, f"/v1/accounts/{ALICE}/{verb}", body=body)
        fields = {"debits_frozen": told[0], "credits_frozen": told[1]}
        got = await replied(rig, 1, work, "active", booked_at_us=AT_US, **fields)
        assert (got.status, got.json["status"]) == (200, status)
        assert got.json["frozen"] == {"debits": told[0], "credits": told[1]}
        (record,) = rig.written()
        assert (record["debits"], record["credits"]) == flags
        assert (record["home_account"], record["target_id"]) == (ALICE, ALICE)


async def test_an_account_is_answered_with_its_balances_once_they_and_its_flags_are_shown():
    async with running() as rig:
        rig.views.show_account(TENANT, shown_account())
        work = asyncio.create_task(do(rig, f"/v1/accounts/{ALICE}/freeze"))
        await until(rig.written)
        flags = {"debits_frozen": True, "credits_frozen": True}
        rig.reply(rig.written()[-1], "active", booked_at_us=AT_US, **flags)
        reading = asyncio.create_task(rig.call("GET", f"/v1/accounts/{ALICE}"))
        await asyncio.sleep(0.05)
        assert not work.done(), "what was read before the freeze is not what stands after it"
        assert not reading.done()
        balances = present.Balances(70, 20, 50)
        frozen = shown_account(
            frozen=present.Frozen(debits=True, credits=True), status="frozen", balances=balances
        )
        rig.views.show_account(TENANT, replace(frozen, changed_at_us=AT_US))
        assert (await reading).json["frozen"] == {"debits": True, "credits": True}
        got = await work
        assert got.json["frozen"] == {"debits": True, "credits": True}
        assert got.json["balances"] == {"posted": 70, "held": 20, "available": 50}


@pytest.mark.usefixtures("impatient")
async def test_an_account_is_frozen_though_the_views_went_away_meanwhile():
    async with running() as rig:
        rig.views.show_account(TENANT, shown_account(balances=present.Balances(7, 0, 7)))
        work = asyncio.create_task(do(rig, f"/v1/accounts/{ALICE}/freeze"))
        await until(rig.written)
        rig.views.away = True
        flags = {"debits_frozen": True, "credits_frozen": False}
        rig.reply(rig.written()[-1], "active", booked_at_us=AT_US, **flags)
        got = await work
        assert (got.status, got.json["status"], got.json["balances"]["posted"]) == (
            200,
            "frozen",
            7,
        )
        assert got.json["frozen"] == {"debits": True, "credits": False}


@pytest.mark.usefixtures("impatient")
async def test_balances_that_are_not_known_are_503_and_never_zero():
    async with running() as rig:
        body = {"currency": "EUR", "kind": "customer"}
        opened = await replied(rig, 1, do(rig, "/v1/accounts", "a", body), "active")
        account = opened.json["id"]
        path = f"/v1/accounts/{account}"
        assert (await rig.call("GET", path)).json["balances"]["posted"] == 0, "as it was opened"
        work = rig.pay("in", payment(destination={"account": account}), Prefer="wait=10")
        await replied(rig, 2, work, "settled", shares=(Share(account, 1, 1),))
        problem_of(await rig.call("GET", path), 503, "views_unavailable")
        problem_of(await do(rig, f"{path}/freeze"), 503, "views_unavailable")


async def test_an_account_that_is_not_empty_is_not_closed():
    async with running() as rig:
        rig.views.show_account(TENANT, shown_account())
        work = do(rig, f"/v1/accounts/{ALICE}/close")
        got = await replied(rig, 1, work, "active", reason="account_not_empty", booked_at_us=AT_US)
        problem = problem_of(got, 422, "operation_refused")
        assert problem["errors"][0]["code"] == "account_not_empty"
        assert (await rig.call("GET", f"/v1/accounts/{ALICE}")).json["status"] == "active"


async def test_an_operation_may_be_asked_for_without_waiting():
    async with running() as rig:
        rig.views.show_account(TENANT, shown_account())
        got = await do(rig, f"/v1/accounts/{ALICE}/freeze", Prefer="respond-async")
        assert (got.status, got.json["status"]) == (202, "active")


async def test_a_payment_known_here_can_be_acted_upon_while_the_views_are_away():
    async with running() as rig:
        payment_id = await authorized(rig)
        rig.views.away = True
        assert (await do(rig, f"/v1/payments/{payment_id}/capture")).status == 202
        unknown = ids.payment_id(TENANT, "unknown", ALICE)
        got = await do(rig, f"/v1/payments/{unknown}/capture", "o2")
        problem_of(got, 503, "views_unavailable")
