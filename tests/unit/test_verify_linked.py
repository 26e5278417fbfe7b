"""Transfers that several homes agree on: what is right passes, each wrong is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from loadtest.verify import databases
from loadtest.verify.checks_linked import LINKED
from tests.unit.test_verify_checks import Change, changed, verdicts
from tests.unit.test_verify_operations import doubling, more, of, removing, setting, telling
from tests.unit.verify_rig import A, B, Row, Tables, World
from tests.unit.verify_rig_linked import C0, CAPPED, D3, Linked, linked_world


@cache
def right() -> Tables:
    return linked_world().tables()


def test_a_right_world_of_several_homes_has_no_difference() -> None:
    found = verdicts(right())
    assert [v for v in found.values() if not v.ok] == []
    assert all(v.count > 0 for name, v in found.items() if not name.startswith("lake."))
    assert found["homes_agree"].count == 9


def wrong(world: World) -> set[str]:
    """Names of the checks that found something; the lake's are not asked."""
    found = verdicts(world.tables())
    return {name for name, verdict in found.items() if not verdict.ok}


def test_one_home_committed_and_another_aborted_is_found() -> None:
    world = linked_world()
    bad = Linked(world, "bad", [(A, C0, 1), (B, C0, 2)])
    bad.prepare(0)
    bad.prepare(1)
    ended = bad.end(0, "committed")
    bad.end(1, "aborted", "insufficient_funds")
    bad.tell(ended)
    assert wrong(world) == {"homes_agree"}


def test_a_home_that_was_never_told_to_commit_is_found() -> None:
    world = linked_world()
    bad = Linked(world, "bad", [(A, C0, 1), (B, C0, 2)])
    bad.prepare(0)
    bad.prepare(1)
    bad.tell(bad.end(0, "committed"))
    assert wrong(world) == {"homes_agree"}


def test_a_commit_of_what_a_home_refused_is_found() -> None:
    world = linked_world()
    bad = Linked(world, "bad", [(A, C0, 1), (B, C0, 2)])
    bad.prepare(0)
    bad.prepare(1, "account_frozen")
    bad.tell(bad.end(0, "committed"))
    assert wrong(world) == {"homes_agree"}


def test_a_home_that_was_never_told_to_abort_is_found() -> None:
    world = linked_world()
    bad = Linked(world, "bad", [(A, C0, 1), (B, C0, 2), (D3, C0, 3)])
    for number in range(3):
        bad.prepare(number, "insufficient_funds" if number == 2 else None)
    bad.tell(bad.end(0, "aborted", "insufficient_funds"), "insufficient_funds")
    assert wrong(world) == {"homes_agree"}


def test_a_leg_that_no_home_has_committed_is_found() -> None:
    world = linked_world()
    bad = Linked(world, "bad", [(A, C0, 1), (B, C0, 2)])
    bad.prepare(0)
    bad.places[1] = -1  # the other home leaves its leg out
    bad.prepare(1)
    ended = [bad.end(number, "committed") for number in range(2)]
    bad.tell(ended[0])
    assert wrong(world) == {"homes_agree", "entries_follow_commands"}


def test_a_part_that_is_committed_twice_is_found() -> None:
    world = linked_world()
    bad = Linked(world, "bad", [(A, C0, 1), (B, C0, 2)])
    bad.prepare(0)
    bad.prepare(1)
    ended = [bad.end(number, "committed") for number in (0, 1, 1)]
    bad.tell(ended[0])
    assert {"homes_agree", "running_balances", "holds_add_up"} <= wrong(world)


def test_an_amount_that_stays_held_after_an_abort_is_found() -> None:
    world = linked_world()
    bad = Linked(world, "bad", [(A, C0, 1), (B, C0, 2), (D3, C0, 3)])
    for number in range(3):
        bad.prepare(number, "insufficient_funds" if number == 2 else None)
    ended = bad.end(0, "aborted", "insufficient_funds")
    bad.places[1] = -1  # the other home gives nothing back
    bad.end(1, "aborted", "insufficient_funds")
    bad.tell(ended, "insufficient_funds")
    assert {"entries_follow_commands", "holds_add_up", "links_follow_rows"} <= wrong(world)


def test_a_transfer_told_as_posted_that_was_given_up_is_found() -> None:
    world = linked_world()
    bad = Linked(world, "bad", [(A, C0, 1), (B, C0, 2)])
    bad.prepare(0)
    bad.prepare(1, "insufficient_funds")
    bad.tell(bad.end(0, "aborted", "insufficient_funds"))
    assert wrong(world) == {"payments_agree_with_ledger"}


@pytest.mark.parametrize("who", [A, C0], ids=["payer", "payee"])
def test_a_commit_goes_through_a_freeze_and_a_prepare_does_not(who: str) -> None:
    world = linked_world()
    good = Linked(world, "good", [(A, C0, 1), (B, C0, 2)])
    good.prepare(0)
    good.prepare(1)
    world.flag(who, "ice", "freeze", credits_=False)
    ended = [good.end(number, "committed") for number in range(2)]
    good.tell(ended[0])
    assert wrong(world) == set()
    if who == A:
        Linked(world, "bad", [(A, C0, 1), (B, C0, 2)]).prepare(0)
        assert "nothing_moves_against_a_flag" in wrong(world)


def test_a_commit_to_a_closed_account_is_found() -> None:
    world = linked_world()
    bad = Linked(world, "bad", [(A, C0, 1), (B, C0, 2)])
    bad.prepare(0)
    bad.prepare(1)
    world.flag(C0, "shut", "close", credits_=False)
    ended = [bad.end(number, "committed") for number in range(2)]
    bad.tell(ended[0])
    assert {"nothing_moves_against_a_flag", "flags_follow_commands"} <= wrong(world)


def test_more_promised_than_a_cap_leaves_is_found() -> None:
    world = linked_world()
    Linked(world, "beyond", [(A, CAPPED, 111)], payment=True).agree()
    assert {"links_follow_rows", "no_account_below_its_limit"} <= wrong(world)


def later(world: World) -> None:
    Linked(world, "late", [(A, C0, 1), (B, C0, 2)]).agree()
    Linked(world, "late-p", [(A, CAPPED, 1)], payment=True).fail("balance_limit_exceeded")


@pytest.mark.parametrize("steps", range(7))
def test_a_transfer_under_way_is_no_difference(steps: int) -> None:
    """However far it is: of one that began after the cut, any step may be there and any missing."""
    world = linked_world()
    cut, before = world.ends(), world.tables()
    way = Linked(world, "way", [(A, C0, 1), (B, C0, 2)])
    ended: list[Row] = []
    todo: list[Callable[[], Any]] = [
        lambda: way.prepare(0),
        lambda: way.prepare(1),
        lambda: ended.append(way.end(0, "committed")),
        lambda: ended.append(way.end(1, "committed")),
        lambda: way.tell(ended[0]),
        lambda: later(world),
    ]
    for step in todo[:steps]:
        step()
    after = world.tables(cut)
    assert [v for v in verdicts(after).values() if not v.ok] == []
    seen_less = after | {name: before[name] for name in databases.VIEW_TABLES}
    assert [v for v in verdicts(seen_less).values() if not v.ok] == []
    decided_less = after | {name: before[name] for name in databases.LEDGER_TABLES}
    assert [v for v in verdicts(decided_less).values() if not v.ok] == []


PREPARED, COMMITTED = of(type="transfer.prepared"), of(type="transfer.committed")
ABORTED = of(type="transfer.aborted")
COMMIT = of(type="transfer.commit")
GIVEN_UP, WHOLE = of(reason="insufficient_funds"), of(nth=-1)
OPENED = {"state": "open"}
PAID_BACK = of(type="transfer.committed", nth=-1)
BEGUN_BACK = of(type="transfer.prepared", nth=-2)
"""Of what several homes pay back: the last part that was posted, and the first home's."""


def sides(name: str, n: int, at: int, value: Any) -> Callable[[str], str]:
    """Change what a row tells of one leg."""

    def change(extra: str) -> str:
        told = json.loads(extra)
        told["linked"][name][n][at] = value
        return json.dumps(told)

    return change


def entry(of_account: str, amount: int) -> Callable[[list[Row]], int]:
    def find(rows: list[Row]) -> int:
        return next(i for i, row in enumerate(rows) if row["account_id"] == of_account
                    and row["amount_minor"] == amount)  # fmt: skip

    return find


def other_legs(legs: list[Row]) -> list[Row]:
    return [legs[0] | {"amount_minor": 61}, *legs[1:]]


FAULTS = [
    ("entries_follow_commands", "entries", setting(entry(B, -70), held_minor=more(1))),
    ("entries_follow_commands", "entries", setting(entry(B, -70), amount_minor=-69)),
    ("entries_follow_commands", "entries", setting(entry(D3, -10), amount_minor=-11)),
    ("entries_follow_commands", "log_ledger_commands", setting(COMMIT, legs=other_legs)),
    ("entries_follow_commands", "outcomes", setting(ABORTED, type="transfer.rejected")),
    ("journal_is_published", "log_ledger_events", setting(ABORTED, reason="account_frozen")),
    ("journal_is_published", "log_ledger_events", setting(ABORTED, failed_leg=0)),
    ("journal_is_published", "log_ledger_events", setting(PREPARED, parts=[])),
    ("journal_is_published", "log_ledger_events", setting(COMMITTED, leg_indexes=[1])),
    ("homes_agree", "outcomes", removing(COMMITTED)),
    ("homes_agree", "outcomes", doubling(COMMITTED)),
    ("homes_agree", "outcomes", setting(COMMITTED, type="transfer.aborted")),
    ("homes_agree", "outcomes", setting(ABORTED, type="transfer.committed")),
    ("homes_agree", "outcomes", setting(COMMITTED, extra=sides("held", 0, 0, 1))),
    ("homes_agree", "outcomes", setting(PREPARED, extra=telling("linked", parts=[A]))),
    ("homes_agree", "outcomes", setting(PREPARED, extra=telling("linked", parts=[A, B, D3]))),
    ("homes_agree", "outcomes", removing(PREPARED)),
    ("homes_agree", "entries", setting(entry(C0, 60), account_id=B)),
    ("homes_agree", "log_ledger_commands", setting(COMMIT, legs=other_legs)),
    ("homes_agree", "log_ledger_commands", setting(COMMIT, type="transfer.abort")),
    ("links_follow_rows", "links", setting(of(state="committed"), **OPENED)),
    ("links_follow_rows", "links", setting(of(state="aborted"), state="committed")),
    ("links_follow_rows", "links", setting(of(kind="credit"), amount_minor=more(1))),
    ("links_follow_rows", "links", removing(of(kind="credit"))),
    ("links_follow_rows", "links", doubling(of(nth=0))),
    ("links_follow_rows", "rooms", setting(of(nth=0), promised_minor=more(-1))),
    ("links_follow_rows", "rooms", removing(of(nth=0))),
    ("links_follow_rows", "accounts",
     setting(of(account_id=CAPPED), max_balance_minor=389)),
    ("links_follow_rows", "accounts", setting(of(account_id=C0), max_balance_minor=10_000)),
    ("links_follow_rows", "outcomes", setting(COMMITTED, extra=sides("held", 0, 1, 61))),
    ("holds_add_up", "links", setting(of(kind="debit"), **OPENED)),
    ("reversals_within_the_original", "reversals",
     setting(of(nth=-1), reversed_minor=more(1))),
    ("reversals_within_the_original", "outcomes",
     setting(of(type="transfer.reversed", nth=-1),
             extra=telling("reversal", amount_minor=31, legs=[[0, 31]]))),
    ("reversals_within_the_original", "outcomes",
     setting(of(type="transfer.reversed", nth=-1),
             extra=telling("reversal", legs=[[3, 10]]))),
    ("payments_agree_with_ledger", "log_payments_events",
     setting(of(type="transfer.rejected"), reason="account_frozen")),
    ("payments_agree_with_ledger", "log_payments_events",
     setting(of(reason="balance_limit_exceeded"), type="payment.settled", status="settled")),
    ("payments_agree_with_ledger", "log_payments_events",
     setting(of(type="payment.settled", amount_minor=300), captured_minor=299)),
    ("payments_agree_with_ledger", "log_payments_events",
     removing(of(reason="balance_limit_exceeded"))),
    ("requests_end_once", "log_payments_events",
     doubling(of(type="payment.settled", amount_minor=300))),
    ("answers_forwarded_once", "log_payments_requests",
     setting(of(answer="transfer.committed"), answer_leg_indexes=[7])),
    ("answers_forwarded_once", "log_payments_requests",
     setting(of(answer="transfer.committed"), answer_entries=[])),
    ("answers_forwarded_once", "log_payments_requests",
     removing(of(answer="transfer.prepared"))),
    ("views_show_every_transfer", "view_transfers", setting(GIVEN_UP, status="posted")),
    ("views_show_every_transfer", "view_transfers", setting(GIVEN_UP, reason=None)),
    ("views_show_every_transfer", "view_transfers", setting(GIVEN_UP, failed_leg=0)),
    ("views_show_every_transfer", "view_transfers", removing(GIVEN_UP)),
    ("views_show_every_transfer", "view_transfers", setting(WHOLE, status="rejected")),
    ("views_show_every_transfer", "view_transfers", setting(WHOLE, ledger_position=0)),
    ("views_show_every_transfer", "view_transfers", setting(WHOLE, entries="[]")),
    ("views_show_every_transfer", "view_transfers",
     setting(WHOLE, entries=lambda told: json.dumps(json.loads(told)[:2]))),
    ("views_show_every_transfer", "view_transfers",
     setting(WHOLE, entries=lambda told: json.dumps(json.loads(told) * 2))),
    ("views_show_every_transfer", "view_transfers",
     setting(GIVEN_UP, entries=lambda _: right()["view_transfers"].to_pylist()[-1]["entries"])),
    ("no_account_below_its_limit", "accounts",
     setting(of(account_id=CAPPED), max_balance_minor=389)),
    ("homes_agree", "outcomes", removing(PAID_BACK)),
    ("homes_agree", "outcomes", setting(PAID_BACK, type="transfer.aborted")),
    ("homes_agree", "outcomes", setting(BEGUN_BACK, extra=sides("back", 0, 3, 13))),
    ("homes_agree", "log_ledger_commands",
     setting(of(type="transfer.commit", nth=-1), original_legs=[0, 1])),
    ("homes_agree", "log_ledger_commands",
     setting(of(type="transfer.prepare", nth=-1), legs=other_legs)),
    ("entries_follow_commands", "outcomes",
     setting(PAID_BACK, extra=telling("reversal", legs=[[1, 11]]))),
    ("reversals_within_the_original", "outcomes",
     setting(BEGUN_BACK, extra=telling("reversal", legs=[[0, 12]]))),
    ("reversals_within_the_original", "outcomes",
     setting(BEGUN_BACK, extra=sides("back", 0, 1, A))),
    ("reversals_within_the_original", "outcomes",
     setting(of(type="transfer.aborted", nth=-1), extra=telling("reversal", legs=[]))),
    ("links_follow_rows", "links", setting(of(nth=-1), link_id="spread/0")),
    ("one_identity_one_outcome", "identities", removing(of(nth=-1))),
    ("operations_end_once", "outcomes", removing(BEGUN_BACK)),
    ("journal_is_published", "log_ledger_events", setting(BEGUN_BACK, legs=[])),
    ("journal_is_published", "log_ledger_events", setting(BEGUN_BACK, original_legs=[0, 1])),
    ("views_show_every_transfer", "view_transfers", setting(WHOLE, original_id=None)),
    ("views_show_every_transfer", "view_transfers", setting(WHOLE, reversed_minor=more(-1))),
]  # fmt: skip


@pytest.mark.parametrize(("check", "table", "change"), FAULTS)
def test_what_is_wrong_with_a_part_is_found(check: str, table: str, change: Change) -> None:
    found = verdicts(changed(right(), table, change), check)[check]
    assert not found.ok
    assert found.examples


def test_every_check_of_several_homes_is_shown_to_fail() -> None:
    assert {check.name for check in LINKED} <= {check for check, _, _ in FAULTS}
