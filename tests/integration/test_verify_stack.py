"""Verify on a real stack: agrees at rest and under load, and sees what somebody changed by hand."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING

import asyncpg
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaProducer

from loadtest import stack as stacks
from loadtest import trace
from loadtest.proof.run import Run, Setting
from loadtest.verify import lake
from loadtest.verify.command import verify
from schemas.ids import partition_of, slot_of

if TYPE_CHECKING:
    from pathlib import Path

    from loadtest.proof.run import Result
    from tests.integration.conftest import Stack, StackMaker

pytestmark = pytest.mark.timeout(240)


def setting(payments: int, rate: float) -> Setting:
    return Setting(
        payments=payments, rate=rate, accounts=60, events=20, prefix=f"t{secrets.token_hex(4)}"
    )


def run(home: Path, made: Setting) -> Result:
    return asyncio.run(Run(home, made, lambda _: None).go())


async def differing(home: Path) -> set[str]:
    """Names of the checks that found something."""
    _, verdicts = await verify(stacks.read(home))
    assert sum(verdict.count for verdict in verdicts) > 0
    return {verdict.name for verdict in verdicts if not verdict.ok}


def test_a_stack_at_rest_after_repeats_conflicts_and_refusals_agrees(stack: Stack) -> None:
    result = run(stack.home.root, setting(400, 200))
    assert result.judged.surprises == []
    assert result.judged.in_flight == set()
    assert result.judged.repeated > 0
    assert asyncio.run(differing(stack.home.root)) == set()


async def test_a_stack_under_load_agrees(stack: Stack) -> None:
    home = stack.home.root
    load = asyncio.create_task(Run(home, setting(1_500, 150), lambda _: None).go())
    found = []
    while not load.done():
        found.append(await differing(home))
    assert (await load).judged.surprises == []
    assert len(found) > 1, "no load was running beside it"
    assert set().union(*found) == set()


async def test_a_record_that_does_not_decode_is_kept_aside_and_no_difference(stack: Stack) -> None:
    """It has no outcome and no row of its topic: a dead letter and a row of rejects instead."""
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka)
    await producer.start()
    try:
        for topic in ("payments.requests", "ledger.commands", "webhooks.received"):
            await producer.send_and_wait(topic, b"no record of ours", b"key", partition=1)
    finally:
        await producer.stop()
    evidence, verdicts = await verify(stacks.read(stack.home.root))
    assert [verdict for verdict in verdicts if not verdict.ok] == []
    dead = evidence.tables["dead"]["topic"].to_pylist()
    assert {"payments.requests", "ledger.commands", "webhooks.received"} <= set(dead)
    assert evidence.tables["rejects_payments_requests"].num_rows > 0


def test_the_way_of_a_payment_is_traced_on_the_real_log(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(stack.home.root, setting(20, 100))
    monkeypatch.setenv("HEADRACE_HOME", str(stack.home.root))
    assert trace.main([next(iter(result.judged.by_id))]) == 0
    shown = capsys.readouterr().out
    for topic in ("payments.requests", "ledger.commands", "ledger.events", "payments.events"):
        assert topic in shown
    assert trace.main([f"pay_000_{'a' * 26}"]) == 1
    assert "nothing of pay_000_" in capsys.readouterr().err


def test_what_somebody_changed_by_hand_is_seen(new_stack: StackMaker) -> None:
    """Four changes, one after another; each must add a difference that says where."""
    home = new_stack().home.root
    result = run(home, setting(100, 100))
    assert asyncio.run(differing(home)) == set()
    seen: set[str] = set()
    for change, wanted in (
        (land_a_row_twice, "lake.ledger.events"),
        (pay_an_account_behind_the_ledgers_back, "balances_equal_entries"),
        (rewrite_a_row_of_the_journal, "hash_chain"),
        (settle_a_payment_again, "requests_end_once"),
    ):
        asyncio.run(change(stacks.read(home), next(iter(result.judged.by_id)), home))
        found = asyncio.run(differing(home))
        assert wanted in found - seen, f"{change.__name__} was not seen"
        seen |= found


async def land_a_row_twice(running: stacks.Stack, _: str, __: Path) -> None:
    catalog = lake.open_catalog(running.lake_dsn, running.warehouse)
    table = catalog.load_table("bronze.ledger_events")
    rows = table.scan().to_arrow().slice(0, 1)
    table.append(rows.cast(pa.schema(table.schema().as_arrow())))


async def pay_an_account_behind_the_ledgers_back(running: stacks.Stack, _: str, home: Path) -> None:
    await as_ledger_owner(
        home,
        "update ledger.shares set posted_minor = posted_minor + 1 "
        "where posted_minor > 0 and (account_no, share) = "
        "(select account_no, share from ledger.shares where posted_minor > 0 limit 1)",
    )


async def rewrite_a_row_of_the_journal(running: stacks.Stack, payment_id: str, home: Path) -> None:
    await as_ledger_owner(
        home,
        "alter table ledger.journal disable trigger append_only",
        f"update ledger.journal set tenant = 'other' where saga_id = '{payment_id}'",
        "alter table ledger.journal enable trigger append_only",
    )


async def settle_a_payment_again(running: stacks.Stack, payment_id: str, _: Path) -> None:
    """Write the payment's last event to the log once more."""
    partition = partition_of(slot_of(payment_id), running.partitions)
    (log,) = [log for log in await trace._read(running.kafka, running.partitions, payment_id, 10**6)
              if log.topic == "payments.events"]  # fmt: skip
    last = max(i for i, value in enumerate(log.values) if payment_id.encode() in (value or b""))
    producer = AIOKafkaProducer(bootstrap_servers=running.kafka)
    await producer.start()
    try:
        await producer.send_and_wait(
            "payments.events", log.values[last], log.keys[last], partition=partition
        )
    finally:
        await producer.stop()


async def as_ledger_owner(home: Path, *statements: str) -> None:
    dsn = json.loads((home / "stack.json").read_text())["roles"]["ledger_owner"]
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
