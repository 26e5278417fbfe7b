"""What is done to payments and accounts later: what is right passes, each wrong is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from loadtest.verify import databases
from loadtest.verify.checks_linked import LINKED
from loadtest.verify.checks_operations import OPERATIONS
from loadtest.verify.checks_reversals import REVERSALS
from schemas import ids
from tests.unit.test_verify_checks import changed, verdicts
from tests.unit.verify_rig import A, B, D, E, Row, Tables, World, operated_world


@cache
def right() -> Tables:
    return operated_world().tables()


def test_a_right_world_with_operations_has_no_difference() -> None:
    found = verdicts(right())
    assert [v for v in found.values() if not v.ok] == []
    others = {check.name for check in LINKED}
    assert all(
        v.count > 0
        for name, v in found.items()
        if not name.startswith("lake.") and name not in others
    )


Change = Callable[[list[Row]], None]


def of(*, nth: int = 0, **wanted: Any) -> Callable[[list[Row]], int]:
    """Find the nth row with these fields."""

    def find(rows: list[Row]) -> int:
        return [i for i, row in enumerate(rows) if wanted.items() <= row.items()][nth]

    return find


def setting(find: Callable[[list[Row]], int], **fields: Any) -> Change:
    def change(rows: list[Row]) -> None:
        row = rows[find(rows)]
        row |= {k: v(row[k]) if callable(v) else v for k, v in fields.items()}

    return change


def removing(find: Callable[[list[Row]], int]) -> Change:
    def change(rows: list[Row]) -> None:
        del rows[find(rows)]

    return change


def doubling(find: Callable[[list[Row]], int]) -> Change:
    def change(rows: list[Row]) -> None:
        rows.append(dict(rows[find(rows)]))

    return change


def telling(group: str, **facts: Any) -> Callable[[str], str]:
    """Change what a row tells beside its entries."""

    def change(extra: str) -> str:
        told = json.loads(extra)
        told[group] |= {k: v(told[group][k]) if callable(v) else v for k, v in facts.items()}
        return json.dumps(told)

    return change


def more(n: int) -> Callable[[int | None], int]:
    return lambda value: (value or 0) + n


PLACED, POSTED, VOIDED = of(type="hold.placed"), of(type="hold.posted"), of(type="hold.voided")
REVERSED, REFUND = of(type="transfer.reversed"), of(type="payment.refunded")
HELD = next(i for i, row in enumerate(right()["entries"].to_pylist()) if row["held_minor"] > 0)
CLAIMED = ids.operation_identity("demo", "h1-c1")

FAULTS = [
    ("entries_follow_commands", "entries", setting(lambda _: HELD, held_minor=more(1))),
    ("entries_follow_commands", "outcomes", setting(POSTED, extra=telling("hold", amount_minor=1))),
    ("entries_follow_commands", "outcomes", setting(VOIDED, type="hold.rejected")),
    ("entries_follow_commands", "outcomes",
     setting(REVERSED, extra=telling("reversal", legs=[[0, 99]]))),
    ("journal_is_published", "log_ledger_events", setting(VOIDED, reason=None)),
    ("journal_is_published", "log_ledger_events", setting(POSTED, remaining_minor=more(1))),
    ("journal_is_published", "log_ledger_events",
     setting(of(type="account.frozen"), credits_frozen=False)),
    ("holds_add_up", "holds", setting(of(state="posted"), captured_minor=more(1))),
    ("holds_add_up", "holds", setting(of(state="open"), remaining_minor=more(-1))),
    ("holds_add_up", "holds", setting(of(state="expired"), state="voided")),
    ("holds_add_up", "holds", removing(of(state="voided"))),
    ("holds_add_up", "holds", setting(of(state="expired"), expires_at_us=more(10**12))),
    ("holds_add_up", "outcomes", setting(POSTED, extra=telling("hold", amount_minor=more(700)))),
    ("holds_add_up", "outcomes", setting(POSTED, extra=telling("hold", remaining_minor=-1))),
    ("holds_add_up", "outcomes", removing(PLACED)),
    ("holds_add_up", "log_ledger_commands",
     setting(of(type="hold.post", amount_minor=300), amount_minor=299)),
    ("holds_add_up", "shares",
     setting(lambda rows: next(i for i, r in enumerate(rows) if r["held_minor"]), held_minor=0)),
    ("balances_equal_entries", "balances",
     setting(lambda rows: next(i for i, r in enumerate(rows) if r["held_minor"]),
             available_minor=more(40))),
    ("reversals_within_the_original", "reversals", setting(of(nth=0), reversed_minor=more(1))),
    ("reversals_within_the_original", "reversals", removing(of(nth=0))),
    ("reversals_within_the_original", "outcomes",
     setting(REVERSED, extra=telling("reversal", amount_minor=901, legs=[[0, 901]]))),
    ("reversals_within_the_original", "outcomes",
     setting(REVERSED, extra=telling("reversal", original_id="tr_000_other"))),
    ("reversals_within_the_original", "log_ledger_commands",
     setting(of(type="transfer.reverse"), amount_minor=99)),
    ("flags_follow_commands", "accounts", setting(of(account_id=D), credits_frozen=False)),
    ("flags_follow_commands", "accounts", setting(of(account_id=B), closed=True)),
    ("flags_follow_commands", "log_ledger_commands",
     setting(of(type="account.freeze"), credits=False)),
    ("flags_follow_commands", "outcomes",
     setting(of(type="account.closed"), extra=telling("account", debits_frozen=True))),
    ("dry_runs_leave_nothing", "log_ledger_commands", setting(of(dry_run=True), dry_run=False)),
    ("dry_runs_leave_nothing", "outcomes",
     setting(POSTED, extra=lambda e: json.dumps(json.loads(e) | {"dry_run": True}))),
    ("dry_runs_leave_nothing", "outcomes", removing(of(extra='{"dry_run":true}'))),
    ("one_identity_one_outcome", "identities",
     removing(lambda rows: len(rows) - 1)),
    ("one_identity_one_outcome", "outcomes", setting(of(extra='{"dry_run":true}'), extra=None)),
    ("operations_end_once", "log_ledger_commands", removing(of(identity=CLAIMED))),
    ("operations_end_once", "log_ledger_commands", doubling(of(identity=CLAIMED))),
    ("operations_end_once", "log_payments_events", removing(of(operation_id=CLAIMED))),
    ("operations_end_once", "log_payments_events", doubling(REFUND)),
    ("operations_end_once", "log_payments_events",
     removing(of(type="payment.capture_refused"))),
    ("operations_end_once", "log_payments_requests", removing(of(type="payment.refund"))),
    ("operations_end_once", "log_payments_requests", removing(of(type="transfer.reverse"))),
    ("operations_end_once", "outcomes", removing(of(type="account.closed"))),
    ("answers_forwarded_once", "log_payments_requests", removing(of(type="saga.answered"))),
    ("answers_forwarded_once", "log_payments_requests", doubling(of(type="saga.answered"))),
    ("answers_forwarded_once", "log_payments_requests",
     setting(of(type="saga.answered"), amount_minor=more(1))),
    ("answers_forwarded_once", "log_ledger_events", removing(REVERSED)),
    ("requests_end_once", "log_payments_events", removing(of(type="payment.authorized"))),
    ("requests_end_once", "log_payments_events",
     setting(of(type="payment.voided"), status="settled")),
    ("requests_end_once", "log_payments_events",
     setting(of(type="payment.capture_refused"), status="settled")),
    ("requests_end_once", "log_payments_events", removing(of(type="transfer.posted"))),
    ("payments_agree_with_ledger", "log_payments_events",
     setting(of(type="payment.captured"), captured_minor=more(1))),
    ("payments_agree_with_ledger", "log_payments_events", setting(REFUND, refunded_minor=None)),
    ("payments_agree_with_ledger", "log_payments_events", setting(REFUND, status="refunded")),
    ("payments_agree_with_ledger", "log_payments_events",
     setting(of(type="payment.captured"), type="payment.settled")),
    ("payments_agree_with_ledger", "log_payments_events",
     setting(of(type="payment.expired"), type="payment.voided")),
    ("payments_agree_with_ledger", "log_payments_events",
     setting(of(type="payment.capture_refused"), reason="hold_closed")),
    ("payments_agree_with_ledger", "log_payments_events",
     setting(of(type="payment.authorized"), authorized_minor=more(1))),
    ("payments_agree_with_ledger", "log_payments_events",
     setting(of(type="account.closed"), type="account.frozen")),
    ("payments_agree_with_ledger", "log_payments_events", removing(of(type="payment.expired"))),
    ("payments_agree_with_ledger", "log_payments_events", removing(of(type="account.frozen"))),
    ("views_tell_every_event", "view_payments",
     setting(of(status="partially_refunded"), refunded_minor=more(1))),
    ("views_show_the_ledger", "view_accounts", setting(of(account_id=D), status="active")),
    ("views_show_the_ledger", "view_accounts", setting(of(account_id=E), changed_position=0)),
    ("views_show_the_ledger", "view_accounts", setting(of(account_id=B), debits_frozen=True)),
    ("views_show_every_transfer", "view_transfers", removing(of(nth=0))),
    ("views_show_every_transfer", "view_transfers", doubling(of(nth=0))),
    ("views_show_every_transfer", "view_transfers",
     setting(of(nth=-1), reversed_minor=more(1))),
    ("records_lie_where_their_key_says", "log_payments_requests",
     setting(of(type="saga.answered"), _key=b"other")),
]  # fmt: skip


@pytest.mark.parametrize(("check", "table", "change"), FAULTS)
def test_what_is_wrong_with_an_operation_is_found(check: str, table: str, change: Change) -> None:
    found = verdicts(changed(right(), table, change), check)[check]
    assert not found.ok
    assert found.examples


def test_every_check_of_operations_is_shown_to_fail() -> None:
    shown = {check for check, _, _ in FAULTS} | {"nothing_moves_against_a_flag"}
    assert {check.name for check in (*OPERATIONS, *REVERSALS)} <= shown


@pytest.mark.parametrize("payer", [A, B], ids=["at home", "on another partition"])
def test_a_credit_of_a_frozen_account_is_found(payer: str) -> None:
    world = operated_world()
    world.pay("against", payer, D, 1)
    assert not verdicts(world.tables(), "nothing_moves_against_a_flag")[
        "nothing_moves_against_a_flag"
    ].ok


def test_a_hold_of_a_frozen_account_is_found_and_giving_back_is_not() -> None:
    world = operated_world()
    held = world.hold("before", B, A, 5)
    world.flag(B, "stop", "freeze", credits_=False)
    world.end_hold(held, "stop-v")
    name = "nothing_moves_against_a_flag"
    assert verdicts(world.tables(), name)[name].ok
    world.hold("after", B, A, 5)
    assert not verdicts(world.tables(), name)[name].ok


def test_a_payment_to_a_closed_account_is_found() -> None:
    world = operated_world()
    world.pay("against", A, E, 1)
    found = verdicts(world.tables(), "nothing_moves_against_a_flag", "flags_follow_commands")
    assert [verdict.ok for verdict in found.values()] == [False, False]


def later(world: World) -> None:
    held = world.hold("late", A, B, 9)
    world.capture(held, "late-c", 4)
    world.refund(held, "late-r", 2)
    world.flag(B, "late-f", "freeze", credits_=True)
    world.transfer("late-t", [(A, D, 1)], dry=True)


def test_operations_under_way_are_no_difference() -> None:
    world = operated_world()
    cut = world.ends()
    before = world.tables()
    later(world)
    after = world.tables(cut)
    assert [v for v in verdicts(after).values() if not v.ok] == []
    not_told = ("log_ledger_events", "log_payments_events", *databases.VIEW_TABLES)
    decided_only = after | {name: before[name] for name in not_told}
    assert [v for v in verdicts(decided_only).values() if not v.ok] == []
