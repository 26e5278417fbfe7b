"""Lists of transfers, payments and holds, over memory ports: filters, pages, bad parameters."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.kafka.reply import EntryTold
from gateways.payments import cursors, present_transfers, times, transfer_queries
from gateways.payments.ledger_reads import ShownHold
from gateways.payments.lists import Place
from gateways.payments.present_holds import Hold
from gateways.problems import Refused
from schemas import ids
from tests.contract.test_http_operations import shown_account
from tests.contract.test_http_routes import problem_of
from tests.unit.gateway_rig import ALICE, BANK, BOB, OTHER_KEY, TENANT, running

AT_US = 1_800_000_000_000_000


def kept(key, at_us=AT_US, source=ALICE, destination=BOB, **record):
    """A posted transfer as the view has it."""
    sides = [
        EntryTold(source, 1, 4, -5, "EUR", 95, 2), EntryTold(destination, 1, 2, 5, "EUR", 5, 0)
    ]  # fmt: skip
    transfer_id = ids.transfer_id(TENANT, key, source)
    return msgspec.structs.replace(
        present_transfers.transfer({"resource_id": transfer_id} | record, None),
        status="posted",
        legs=present_transfers.legs_of(sides),
        entries=[present_transfers.entry(side) for side in sides],
        booked_at=times.timestamp(at_us),
        effective_at=times.timestamp(at_us),
    )


def held(n, at_us=AT_US):
    """An open hold as the view has it."""
    payment = ids.payment_id(TENANT, f"h{n}", ALICE)
    stamp = times.timestamp(at_us)
    return ShownHold(Hold(payment, 10, 4, 6, "EUR", stamp, stamp), Place(at_us, payment))


async def walked(rig, path, limit=2):
    """Return the ids of all pages."""
    found, cursor = [], ""
    while True:
        got = await rig.call("GET", f"{path}limit={limit}{cursor}")
        assert got.status == 200, got
        assert len(got.json["data"]) <= limit
        found += [one.get("id") or one["payment"] for one in got.json["data"]]
        if got.json["next_cursor"] is None:
            return found
        cursor = f"&cursor={got.json['next_cursor']}"


async def test_transfers_are_found_by_what_the_client_said_of_them_page_by_page():
    made = [
        kept(
            f"t{n}", AT_US + n // 2, reference=f"r{n % 2}", metadata={"a": "b", "shop": f"ü{n % 3}"}
        )
        for n in range(9)
    ]
    made.append(kept("bank", AT_US, BANK, BOB))
    made.sort(key=lambda t: (-times.parse(t.booked_at), t.id))
    async with running() as rig:
        for transfer in made:
            rig.views.show_transfer(TENANT, transfer)
        for query, wanted in (
            ("", lambda t: True),
            ("reference=r1&", lambda t: t.reference == "r1"),
            (f"metadata.shop={quote('ü2')}&", lambda t: t.metadata.get("shop") == "ü2"),
            (f"reference=r0&metadata.a=b&metadata.shop={quote('ü1')}&",
             lambda t: (t.reference, t.metadata.get("shop")) == ("r0", "ü1")),
            (f"account={BANK}&", lambda t: BANK in {e.account for e in t.entries}),
            (f"account={ALICE}&from={times.timestamp(AT_US + 1)}&to={times.timestamp(AT_US + 3)}&",
             lambda t: AT_US + 1 <= times.parse(t.booked_at) < AT_US + 3),
            ("metadata.a=B&", lambda t: False),
        ):  # fmt: skip
            found = await walked(rig, f"/v1/transfers?{query}")
            assert found == [t.id for t in made if wanted(t)], query
        other = await rig.call("GET", "/v1/transfers", key=OTHER_KEY)
        assert other.json == {"data": [], "next_cursor": None}


async def test_what_is_held_on_an_account_is_listed_page_by_page():
    async with running() as rig:
        rig.views.show_account(TENANT, shown_account())
        shown = [held(n, AT_US + n // 2) for n in range(5)]
        for hold in shown:
            rig.views.show_hold(ALICE, hold)
        shown.sort(key=lambda s: (-s.place.at_us, s.place.id))
        found = await walked(rig, f"/v1/accounts/{ALICE}/holds?")
        assert found == [s.place.id for s in shown]
        (one,) = (await rig.call("GET", f"/v1/accounts/{ALICE}/holds?limit=1")).json["data"]
        assert (one["amount"], one["captured"], one["remaining"]) == (10, 4, 6)
        other = await rig.call("GET", f"/v1/accounts/{ALICE}/holds", key=OTHER_KEY)
        problem_of(other, 404, "not_found")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("reference=" + "x" * 141, "/reference"), ("metadata.=x", "/metadata."),
        ("metadata=x", "/metadata"), ("metadata." + "n" * 41 + "=x", "/metadata." + "n" * 41),
        ("metadata.a=" + "x" * 501, "/metadata.a"), ("metadata.a=1&metadata.a=2", "/metadata.a"),
        ("metadata.a%2Fb~=1&metadata.a%2Fb~=2", "/metadata.a~1b~0"),
        ("reference=%00", "/reference"), ("metadata.a=b%00", "/metadata.a"),
        ("metadata.a%01=b", "/metadata.a\x01"), ("idempotency_key=%00", "/idempotency_key"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "/to"), ("account=x", "/account"),
        ("cursor=x", "/cursor"), ("limit=0", "/limit"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/transfers", "/v1/payments"])
async def test_a_wrong_parameter_of_a_search_is_400_by_its_name(path, query, pointer):
    async with running() as rig:
        problem = problem_of(await rig.call("GET", f"{path}?{query}"), 400, "query_invalid")
        assert [error["pointer"] for error in problem["errors"]] == [pointer]


@pytest.mark.parametrize("query", ["status=posted", "idempotency_key=k"])
async def test_transfers_have_no_such_filter(query):
    async with running() as rig:
        problem_of(await rig.call("GET", f"/v1/transfers?{query}"), 400, "query_invalid")


@pytest.mark.parametrize("parse", [cursors.parse, transfer_queries.parse])
@given(text=st.text("abcdefgmt.=&%+;/~ü\0\n-_0123456789", max_size=60), name=st.text(max_size=50))
def test_no_query_breaks_a_search_whatever_it_holds(parse, text, name):
    for query in (text, f"metadata.{text}", f"metadata.{quote(name)}={quote(text)}"):
        with suppress(Refused):  # and nothing else
            parse("demo", query)


async def test_a_cursor_of_one_list_does_not_open_another():
    async with running() as rig:
        for n in range(2):
            rig.views.show_transfer(TENANT, kept(f"t{n}", reference="r"))
        got = await rig.call("GET", "/v1/transfers?reference=r&limit=1")
        cursor = got.json["next_cursor"]
        for path in ("/v1/transfers?", "/v1/transfers?reference=s&", "/v1/payments?reference=r&"):
            problem_of(await rig.call("GET", f"{path}cursor={cursor}"), 400, "query_invalid")
