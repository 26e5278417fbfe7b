"""A right world passes every check; each way to make it wrong is found by the check for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from loadtest.verify import compare, databases, frames
from loadtest.verify.checks_linked import LINKED
from loadtest.verify.checks_operations import OPERATIONS
from loadtest.verify.checks_reversals import REVERSALS
from loadtest.verify.compare import Verdict
from schemas.topics import TOPICS
from tests.unit.verify_rig import A, B, Tables, small_world


def verdicts(tables: Tables, *only: str) -> dict[str, Verdict]:
    return {verdict.name: verdict for verdict in compare.run(tables, only)}


def test_a_right_world_has_no_difference() -> None:
    found = verdicts(small_world().tables())
    assert [v for v in found.values() if not v.ok] == []
    later = {check.name for check in (*OPERATIONS, *REVERSALS, *LINKED)} | {
        "views_show_every_transfer"
    }
    assert all(
        v.count > 0 or name in later or name.startswith("lake.") for name, v in found.items()
    )
    assert found["lake.payments.events"].count == 4 + 2 * 6 + 1


Change = Callable[[list[dict[str, Any]]], None]


def changed(tables: Tables, name: str, change: Change) -> Tables:
    rows = tables[name].to_pylist()
    change(rows)
    return tables | {name: pa.Table.from_pylist(rows, schema=tables[name].schema)}


def setting(row: int = -1, **fields: Any) -> Change:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[row] |= fields

    return change


def adding(column: str, amount: int, row: int = -1) -> Change:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[row][column] += amount

    return change


def removing(row: int = -1) -> Change:
    def change(rows: list[dict[str, Any]]) -> None:
        del rows[row]

    return change


def doubling(row: int = -1) -> Change:
    def change(rows: list[dict[str, Any]]) -> None:
        rows.append(rows[row])

    return change


SETTLED, SETTLED_BY = 9, 6
"""Where the log has the end of payment p1, and the ledger's event that led to it."""

FAULTS = [
    ("commands_decided_once", "outcomes", removing()),
    ("commands_decided_once", "outcomes", doubling()),
    ("commands_decided_once", "outcomes", setting(body_hash="0" * 64)),
    ("commands_decided_once", "log_ledger_commands", removing()),
    ("entries_follow_commands", "entries", adding("amount_minor", 1)),
    ("entries_follow_commands", "entries", removing()),
    ("journal_gapless", "outcomes", adding("position", 1)),
    ("journal_gapless", "outcomes", removing(0)),
    ("journal_gapless", "outcomes", setting(booked_at_us=0)),
    ("journal_gapless", "partitions", adding("next_position", 1)),
    ("journal_is_published", "log_ledger_events", removing()),
    ("journal_is_published", "log_ledger_events", setting(reason="account_frozen")),
    ("journal_is_published", "log_ledger_events", setting(chain_hash="0" * 64)),
    ("journal_is_published", "entries", adding("held_minor", 1)),
    ("debits_equal_credits", "entries", adding("amount_minor", -1)),
    ("running_balances", "entries", adding("posted_minor", 1)),
    ("running_balances", "entries", adding("version", 1)),
    ("balances_equal_entries", "shares", adding("posted_minor", 1)),
    ("balances_equal_entries", "shares", removing()),
    ("balances_equal_entries", "balances", adding("available_minor", -1)),
    ("no_account_below_its_limit", "shares", adding("posted_minor", -1_000_000, 1)),
    ("one_identity_one_outcome", "identities", removing()),
    ("one_identity_one_outcome", "identities", doubling()),
    ("one_identity_one_outcome", "log_payments_events", doubling(SETTLED)),
    ("hash_chain", "outcomes", setting(reason="account_frozen")),
    ("hash_chain", "outcomes", removing()),
    ("hash_chain", "entries", adding("amount_minor", 1)),
    ("requests_end_once", "log_payments_events", removing()),
    ("requests_end_once", "log_payments_events", doubling()),
    ("requests_end_once", "log_payments_requests", removing()),
    ("payments_agree_with_ledger", "log_payments_events", setting(reason="account_frozen")),
    ("payments_agree_with_ledger", "log_payments_events", setting(type="payment.settled")),
    ("payments_agree_with_ledger", "outcomes", setting(reason="account_frozen")),
    ("records_lie_where_their_key_says", "log_payments_events", adding("_partition", 1)),
    ("records_lie_where_their_key_says", "log_ledger_events", setting(_key=b"other")),
    ("webhooks_judged_once", "log_webhooks_events", removing()),
    ("webhooks_judged_once", "log_webhooks_events", setting(type="webhook.accepted")),
    ("views_tell_every_event", "view_timeline", removing()),
    ("views_tell_every_event", "view_timeline", setting(event="settled")),
    ("views_tell_every_event", "view_payments", setting(status="accepted")),
    ("views_tell_every_event", "view_payments", setting(reason="account_frozen")),
    ("views_show_the_ledger", "view_entries", removing()),
    ("views_show_the_ledger", "view_entries", adding("amount_minor", 1)),
    ("views_show_the_ledger", "view_shares", adding("posted_minor", 1)),
    ("views_show_the_ledger", "view_accounts", removing()),
    ("views_count_webhooks", "view_webhooks", adding("deliveries", 1)),
    ("views_count_webhooks", "view_webhooks", removing()),
    ("lake.payments.events", "bronze_payments_events", removing()),
    ("lake.payments.events", "bronze_payments_events", doubling()),
    ("lake.payments.events", "bronze_payments_events", setting(reason="account_frozen")),
    ("lake.ledger.events", "bronze_ledger_events", setting(SETTLED_BY, entries=[])),
    ("lake.webhooks.received", "bronze_webhooks_received", setting(body=b"{ }")),
    ("lake.payments.requests", "bronze_payments_requests", setting(_timestamp_ms=0)),
    ("lake.payments.requests", "log_payments_requests", removing()),
]


@pytest.mark.parametrize(("check", "table", "change"), FAULTS)
def test_what_is_wrong_is_found(check: str, table: str, change: Change) -> None:
    found = verdicts(changed(small_world().tables(), table, change), check)[check]
    assert not found.ok
    assert found.examples


def test_every_check_but_the_lake_s_own_repeats_is_shown_to_fail() -> None:
    named = set(verdicts(small_world().tables()))
    shown = {check for check, _, _ in FAULTS}
    shown |= {check.name for check in (*OPERATIONS, *REVERSALS, *LINKED)} | {
        "views_show_every_transfer"
    }
    assert {name for name in named - shown if not name.startswith("lake.")} == set()


def test_a_payment_under_way_is_no_difference() -> None:
    """Of one that began after the cut, any part may be there already and any may be missing."""
    world = small_world()
    cut = world.ends()
    before = world.tables()
    world.pay("late", A, B, 1)
    after = world.tables(cut)
    assert [v for v in verdicts(after).values() if not v.ok] == []
    not_told = ("log_ledger_events", "log_payments_events", *databases.VIEW_TABLES)
    decided_only = after | {name: before[name] for name in not_told}
    assert [v for v in verdicts(decided_only).values() if not v.ok] == []
    requested_only = decided_only | {name: before[name] for name in databases.LEDGER_TABLES}
    assert [v for v in verdicts(requested_only).values() if not v.ok] == []


def test_of_a_compacted_topic_the_log_may_have_less_than_the_lake() -> None:
    topic = next(topic for topic in TOPICS if TOPICS[topic].compacted)
    tables = small_world().tables()
    row = {
        "_partition": 0, "_offset": 0, "_timestamp_ms": 0, "_key": b"k", "_headers": [],
        "value": b"v",
    }  # fmt: skip
    name = frames.bronze_name(topic)
    tables[name] = pa.Table.from_pylist([row], schema=tables[name].schema)
    assert verdicts(tables)[f"lake.{topic}"].ok
    tables[name] = pa.Table.from_pylist([row, row], schema=tables[name].schema)
    assert not verdicts(tables)[f"lake.{topic}"].ok
