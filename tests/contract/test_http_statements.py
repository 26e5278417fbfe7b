"""Statements and balances at a time, over memory ports; and how a balance runs, for any shares."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways.payments import entry_queries, times
from gateways.payments.entry_queries import EntryQuery
from gateways.payments.memory import MemoryViews
from gateways.payments.present_entries import EntryPlace, EntryRow, Standing, statement
from tests.contract.test_http_operations import shown_account
from tests.contract.test_http_routes import problem_of
from tests.unit.gateway_rig import ALICE, BANK, OTHER_KEY, TENANT, running

AT_US = 1_800_000_000_000_000


def history(rng, count=30, shares=4):
    """An account's entries: each share in its own order, several at one instant, some shifted."""
    rows, now = [], {}
    clocks = dict.fromkeys(range(shares), AT_US)
    for _ in range(count):
        share = rng.randrange(shares)
        version, before = now.get(share, (0, Standing()))
        amount = rng.choice((0, rng.randrange(-50, 50)))
        held = before.held_minor if amount else before.held_minor + rng.randrange(5)
        after = Standing(before.posted_minor + amount, held)
        clocks[share] += rng.choice((0, 0, 1, 2))
        now[share] = (version + 1, after)
        booked = clocks[share]
        rows.append(
            EntryRow(
                place=EntryPlace(booked, share, version + 1),
                event="transfer.posted" if amount else "hold.placed",
                transfer_id=f"tr_{len(rows)}",
                amount_minor=amount,
                currency="EUR",
                before=before,
                after=after,
                effective_at_us=booked + rng.choice((0, 0, 0, -3, 3)),
            )
        )
    return rows


def expected(rows):
    """Run through all of it, oldest first; return (transfer, posted, held), newest first."""
    said, now = [], {}
    for row in sorted(rows, key=lambda row: row.place):
        now[row.place.share] = row.after
        posted = sum(share.posted_minor for share in now.values())
        held = sum(share.held_minor for share in now.values())
        said.append((row.transfer_id, posted, held))
    return said[::-1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), limit=st.integers(1, 12))
async def test_the_balance_runs_over_all_shares_and_on_over_pages(seed, limit):
    rows = history(random.Random(seed))
    views = MemoryViews()
    views.show_entries(ALICE, rows)
    query, said = EntryQuery(ALICE, limit=limit), []
    while (page := await views.entries(query)).rows:
        shown = statement(page.rows, page.shares)
        assert len(shown) <= limit
        said += [(e.transfer, e.balances.posted, e.balances.held) for e in shown]
        assert all(e.balances.available == e.balances.posted - e.balances.held for e in shown)
        cursor = entry_queries.encode(page.rows[-1].place, query)
        after = entry_queries.parse_statement(ALICE, f"limit={limit}&cursor={cursor}").after
        query = replace(query, after=after)
    assert said == expected(rows)


async def shown(rig, rows):
    rig.views.show_account(TENANT, shown_account())
    rig.views.show_entries(ALICE, rows)


async def test_a_statement_goes_page_by_page_within_its_times():
    rows = history(random.Random(7))
    start, end = AT_US + 2, AT_US + 8
    wanted = [
        line
        for line in expected(rows)
        if start <= next(r for r in rows if r.transfer_id == line[0]).place.booked_at_us < end
    ]
    filters = f"from={times.timestamp(start)}&to={times.timestamp(end)}"
    async with running() as rig:
        await shown(rig, rows)
        said, path = [], f"/v1/accounts/{ALICE}/entries?{filters}&limit=4"
        while True:
            got = await rig.call("GET", path)
            assert got.status == 200
            said += [
                (e["transfer"], e["balances"]["posted"], e["balances"]["held"])
                for e in got.json["data"]
            ]
            if got.json["next_cursor"] is None:
                break
            path = f"/v1/accounts/{ALICE}/entries?{filters}&limit=4"
            path += f"&cursor={got.json['next_cursor']}"
        assert said == wanted
        other = await rig.call("GET", path.replace("limit=4", "limit=5"))
        assert other.status == 200, "how many a page holds is no filter"
        problem_of(await rig.call("GET", path.replace("from=", "to=", 1)), 400, "query_invalid")


async def test_a_balance_at_a_time_is_what_had_been_booked_or_counts_by_then():
    rows = history(random.Random(11))
    async with running() as rig:
        await shown(rig, rows)
        for at_us in range(AT_US - 1, AT_US + 20, 3):
            path = f"/v1/accounts/{ALICE}/balance?at={times.timestamp(at_us)}"
            got = (await rig.call("GET", path)).json
            posted = sum(r.amount_minor for r in rows if r.place.booked_at_us <= at_us)
            assert (got["balances"]["posted"], got["basis"]) == (posted, "booked")
            got = (await rig.call("GET", f"{path}&basis=effective")).json
            posted = sum(r.amount_minor for r in rows if r.effective_at_us <= at_us)
            assert (got["balances"]["posted"], got["basis"]) == (posted, "effective")
            assert got["at"] == times.timestamp(at_us)
        got = (await rig.call("GET", f"/v1/accounts/{ALICE}/balance")).json
        assert got["currency"] == "EUR", "without a time it is now"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("entries?limit=0", "limit"), ("entries?cursor=x", "cursor"), ("entries?from=now", "from"),
     ("entries?status=x", "status"), ("balance?at=2026-01-01", "at"), ("balance?basis=x", "basis"),
     ("balance?limit=1", "limit")],
)  # fmt: skip
async def test_a_wrong_parameter_is_400_by_its_name(query, parameter):
    async with running() as rig:
        await shown(rig, [])
        got = await rig.call("GET", f"/v1/accounts/{ALICE}/{query}")
        problem = problem_of(got, 400, "query_invalid")
        assert problem["errors"][0]["pointer"] == f"/{parameter}"


@pytest.mark.parametrize("what", ["entries", "balance"])
async def test_only_ones_own_accounts_have_a_statement(what):
    async with running() as rig:
        await shown(rig, history(random.Random(1)))
        for account, key in ((ALICE, OTHER_KEY), (BANK, None)):
            headers = {"key": key} if key else {}
            got = await rig.call("GET", f"/v1/accounts/{account}/{what}", **headers)
            problem_of(got, 404, "not_found")


async def test_a_cursor_belongs_to_its_account():
    query = EntryQuery(BANK, limit=1)
    cursor = entry_queries.encode(EntryPlace(AT_US, 0, 1), query)
    async with running() as rig:
        await shown(rig, [])
        got = await rig.call("GET", f"/v1/accounts/{ALICE}/entries?cursor={cursor}")
        problem_of(got, 400, "query_invalid")
