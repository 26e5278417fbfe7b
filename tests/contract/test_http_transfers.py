"""Transfers and reversals, route by route, over memory ports."""

from __future__ import annotations

import asyncio

import msgspec

from gateways.kafka.reply import EntryTold
from gateways.payments import present_transfers
from schemas import ids
from tests.contract.test_http_operations import replied
from tests.contract.test_http_routes import problem_of
from tests.unit.gateway_rig import ALICE, BANK, BOB, OTHER_KEY, TENANT, running

LEG = {"source": ALICE, "destination": BOB, "amount": 5, "currency": "EUR"}
AT_US = 1_800_000_000_000_000
ENTRIES = (
    EntryTold(ALICE, 1, 4, -5, "EUR", 95, 0),
    EntryTold(BOB, 1, 2, 5, "EUR", 5, 0),
)


def account_at(partition, number=0):
    """Return a customer account that is at home on a partition."""
    found = (ids.account_id(TENANT, f"x{n}", "customer") for n in range(10_000))
    at_home = [next(a for a in found if ids.slot_of(a) % 4 == partition) for _ in range(number + 1)]
    return at_home[-1]


async def move(rig, key="t", *, legs=(LEG,), **rest):
    headers = {name: rest.pop(name) for name in ("Prefer",) if name in rest}
    body = {"legs": list(legs)} | rest
    return await rig.call("POST", "/v1/transfers", body, Idempotency_Key=key, **headers)


async def posted(rig, key="t", **rest):
    count = len(rig.written()) + 1
    work = move(rig, key, **rest)
    return await replied(rig, count, work, "posted", entries=ENTRIES, booked_at_us=AT_US)


async def test_a_transfer_waits_by_default_and_is_201_with_its_entries():
    async with running() as rig:
        got = await posted(
            rig, reference="r", metadata={"a": "b"}, effective_at="2026-01-31T12:00:00Z"
        )
        assert (got.status, got.json["status"], got.json["legs"]) == (201, "posted", [LEG])
        assert [(e["account"], e["amount"]) for e in got.json["entries"]] == [(ALICE, -5), (BOB, 5)]
        assert got.json["effective_at"] == "2026-01-31T12:00:00.000000Z"
        (record,) = rig.written()
        assert record["resource_id"] == got.json["id"] == ids.transfer_id(TENANT, "t", ALICE)
        assert (record["type"], record["reference"]) == ("transfer.create", "r")
        assert record["legs"][0]["amount_minor"] == 5
        assert got.headers["location"] == f"/v1/transfers/{got.json['id']}"
        shown = await rig.call("GET", got.headers["location"])
        assert shown.json == got.json
        other = await rig.call("GET", got.headers["location"], key=OTHER_KEY)
        problem_of(other, 404, "not_found")


async def test_the_same_key_replays_and_another_body_is_422():
    async with running() as rig:
        first = await posted(rig)
        again = await move(rig)
        assert (again.status, again.headers["idempotent-replayed"]) == (200, "true")
        assert again.json == first.json
        other = await move(rig, legs=[LEG | {"amount": 6}])
        problem_of(other, 422, "idempotency_key_reused")
        assert len(rig.written()) == 1


async def test_a_repeat_that_this_gateway_does_not_know_is_read_from_the_view():
    async with running() as rig:
        transfer_id = ids.transfer_id(TENANT, "t", ALICE)
        record = {"resource_id": transfer_id, "legs": [], "reference": "from the view"}
        view = msgspec.structs.replace(present_transfers.transfer(record, None), status="posted")
        rig.views.show_transfer(TENANT, view)
        got = await replied(rig, 1, move(rig), "posted", repeated=True, entries=())
        assert (got.status, got.json["reference"]) == (200, "from the view")
        assert got.headers["idempotent-replayed"] == "true"


async def test_a_refused_transfer_is_422_at_the_leg_that_failed():
    async with running() as rig:
        work = move(rig, legs=[LEG, LEG | {"amount": 7}])
        got = await replied(
            rig, 1, work, "rejected", reason="insufficient_funds", detail="No.", failed_leg=1
        )
        problem = problem_of(got, 422, "transfer_rejected")
        error = {"pointer": "/legs/1", "code": "insufficient_funds", "detail": "No."}
        assert problem["errors"] == [error]
        problem_of(await move(rig, legs=[LEG, LEG | {"amount": 7}]), 422, "transfer_rejected")


async def test_an_undecided_transfer_is_202():
    async with running() as rig:
        got = await move(rig, Prefer="wait=0")
        assert (got.status, got.json["status"], got.json["entries"]) == (202, "accepted", [])


async def test_every_broken_rule_of_a_leg_is_named():
    async with running() as rig:
        bad = LEG | {"currency": "XXX", "destination": ALICE}
        problem = problem_of(await move(rig, legs=[LEG, bad]), 422, "validation_failed")
        assert [(e["pointer"], e["code"]) for e in problem["errors"]] == [
            ("/legs/1/currency", "currency_unknown"), ("/legs/1/destination", "same_account")
        ]  # fmt: skip
        for body, pointer in (
            ({"legs": []}, "/legs"), ({"legs": [LEG] * 65}, "/legs"),
            ({"effective_at": "yesterday"}, "/effective_at"),
            ({"effective_at": "1066-10-14T09:00:00Z"}, "/effective_at"),
        ):  # fmt: skip
            problem = problem_of(await move(rig, **body), 422, "validation_failed")
            assert problem["errors"][0]["pointer"] == pointer
        assert rig.written() == []


async def test_debits_of_customers_at_home_anywhere_are_one_transfer():
    here, there = account_at(0), account_at(1)
    async with running() as rig:
        legs = [LEG | {"source": a, "destination": BANK} for a in (here, there)]
        assert (await move(rig, legs=legs, Prefer="wait=0")).status == 202
        assert rig.written()[0]["home_account"] == here


async def test_a_dry_run_is_told_and_makes_nothing():
    async with running() as rig:
        got = await posted(rig, dry_run=True)
        assert (got.status, got.json["dry_run"], got.json["status"]) == (200, True, "allowed")
        assert rig.written()[0]["dry_run"] is True


async def test_a_dry_run_leaves_its_key_to_the_transfer_and_is_decided_anew_each_time():
    async with running() as rig:
        tried = [(await posted(rig, dry_run=True)).json["id"] for _ in range(2)]
        assert len(rig.written()) == 2
        made = await posted(rig)
        assert (made.status, made.json["status"]) == (201, "posted")
        assert made.json["id"] == ids.transfer_id(TENANT, "t", ALICE)
        assert len({made.json["id"], *tried}) == 3
        assert {record["idempotency_key"] for record in rig.written()} == {"t"}


async def test_a_reversal_is_a_transfer_of_its_own_at_the_payees_home():
    async with running() as rig:
        made = (await posted(rig)).json["id"]
        path = f"/v1/transfers/{made}/reversals"

        def reverse(body, key="r"):
            return rig.call("POST", path, body, Idempotency_Key=key)

        got = await replied(
            rig,
            2,
            reverse({"amount": 3, "reference": "back", "metadata": {"a": "b"}}),
            "applied",
            timeline=(),
            entries=ENTRIES,
            booked_at_us=AT_US,
        )
        assert (got.status, got.json["status"], got.json["reverses"]) == (201, "posted", made)
        record = rig.written()[-1]
        assert (record["type"], record["target_id"]) == ("transfer.reverse", made)
        assert (record["home_account"], record["amount_minor"]) == (BOB, 3)
        assert (record["reference"], record["metadata"]) == ("back", {"a": "b"})
        assert (got.json["reference"], got.json["metadata"]) == ("back", {"a": "b"})
        assert record["resource_id"] == got.json["id"] == ids.transfer_id(TENANT, "r", BOB)
        again = await reverse({"amount": 3, "reference": "back", "metadata": {"a": "b"}})
        assert (again.status, again.json) == (200, got.json)
        problem_of(await reverse({"amount": 4}), 422, "idempotency_key_reused")
        too_much = reverse({"amount": 99}, "r2")
        got = await replied(rig, 3, too_much, "refused", reason="amount_exceeds_original")
        problem = problem_of(got, 422, "transfer_rejected")
        assert problem["errors"][0]["code"] == "amount_exceeds_original"


async def shown(rig, *movements):
    """Show a posted transfer in the views; return the path of its reversals."""
    sides = [
        EntryTold(account, 0, 1, sign * 5, "EUR", sign * 5, 0)
        for movement in movements
        for account, sign in zip(movement, (-1, 1), strict=True)
    ]
    transfer_id = ids.transfer_id(TENANT, "shown", movements[0][0])
    view = present_transfers.transfer({"resource_id": transfer_id}, None)
    entries = [present_transfers.entry(side) for side in sides]
    legs = present_transfers.legs_of(sides)
    view = msgspec.structs.replace(view, status="posted", entries=entries, legs=legs)
    rig.views.show_transfer(TENANT, view)
    return f"/v1/transfers/{transfer_id}/reversals"


async def test_one_leg_is_paid_back_at_its_payees_home():
    here, there = account_at(0), account_at(1)
    async with running() as rig:
        path = await shown(rig, (ALICE, here), (ALICE, there), (ALICE, BANK))
        for leg, home in enumerate((here, there, here)):
            key = f"r{leg}"
            got = await rig.call(
                "POST", path, {"leg": leg, "amount": 2}, Idempotency_Key=key, Prefer="wait=0"
            )
            assert got.status == 202, got.json
            [record] = [r for r in rig.written() if r["resource_id"] == got.json["id"]]
            assert (record["original_leg"], record["amount_minor"]) == (leg, 2)
            assert record["home_account"] == home, "an unguarded payee's leg: first guarded payee's"
            assert got.json["id"] == ids.transfer_id(TENANT, key, home)
        other = await rig.call("POST", path, {"leg": 1, "amount": 2}, Idempotency_Key="r0")
        problem_of(other, 422, "idempotency_key_reused")


async def test_a_leg_that_is_none_of_the_originals_is_named_with_its_rule():
    async with running() as rig:
        path = await shown(rig, (ALICE, BOB), (ALICE, BANK))
        for leg, code in (
            (2, "out_of_range"), (63, "out_of_range"), (64, "out_of_range"), (-1, "out_of_range"),
            (1.5, "type_invalid"), ("0", "type_invalid"), (True, "type_invalid"),
        ):  # fmt: skip
            got = await rig.call("POST", path, {"leg": leg}, Idempotency_Key="r")
            [error] = problem_of(got, 422, "validation_failed")["errors"]
            assert (error["pointer"], error["code"]) == ("/leg", code), leg
        got = await rig.call("POST", path, {"leg": 2}, Idempotency_Key="r")
        assert "0 to 1" in got.json["detail"]
        got = await rig.call("POST", path, {"reference": "a\u0007"}, Idempotency_Key="r")
        assert problem_of(got, 422, "validation_failed")["errors"][0]["pointer"] == "/reference"
        assert rig.written() == []


async def test_the_whole_is_paid_back_from_the_first_legs_home_on_whatever_homes_must_agree():
    async with running() as rig:
        first = account_at(1)
        path = await shown(rig, (ALICE, first), (ALICE, account_at(0)))
        got = await rig.call("POST", path, {}, Idempotency_Key="r", Prefer="wait=0")
        assert got.status == 202
        record = rig.written()[-1]
        assert (record["home_account"], record["original_leg"]) == (first, None)


async def test_what_went_between_unguarded_accounts_is_paid_back_at_the_first_guarded_payers():
    other_bank = ids.account_id(TENANT, "other bank", "external")
    async with running() as rig:
        path = await shown(rig, (BANK, other_bank), (ALICE, BANK))
        got = await rig.call("POST", path, {}, Idempotency_Key="r", Prefer="wait=0")
        assert got.status == 202
        assert rig.written()[-1]["home_account"] == ALICE


async def test_what_does_not_exist_or_moved_nothing_can_not_be_reversed():
    async with running() as rig:
        unknown = ids.transfer_id(TENANT, "none", ALICE)
        for name in (unknown, "tr_1", ids.payment_id(TENANT, "p", ALICE)):
            got = await rig.call("POST", f"/v1/transfers/{name}/reversals", Idempotency_Key="r")
            problem_of(got, 404, "not_found")
        record = {"resource_id": unknown}
        rejected = msgspec.structs.replace(
            present_transfers.transfer(record, None), status="rejected"
        )
        rig.views.show_transfer(TENANT, rejected)
        got = await rig.call("POST", f"/v1/transfers/{unknown}/reversals", Idempotency_Key="r")
        problem_of(got, 422, "operation_refused")
        await asyncio.sleep(0)
        assert rig.written() == []
