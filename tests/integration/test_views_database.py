"""Real Kafka and Postgres: the views are what the log says, whatever dies, and how often it is
read.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from deploy.local.kafka import Kafka
from deploy.local.postgres import Postgres
from gateways.payments.cursors import PaymentQuery
from gateways.payments.hold_queries import HoldQuery
from gateways.payments.ledger_reads import holds, transfers
from gateways.payments.lists import Place
from gateways.payments.payment_reads import list_statement
from gateways.payments.transfer_queries import TransferQuery
from schemas import tags, wire
from schemas.errors import Fenced, Poisoned, Unavailable
from streams.views import statements, store
from streams.views.migrate import migrate, migrations
from streams.views.rows import LEDGER, PAYMENTS, TOPICS, Rows, fold
from streams.views.store import Store
from tests.conftest import DatabaseMaker, TopicCleaner
from tests.integration.sink_rig import DRAIN_S, Sent, Sink, committed, ended, producing
from tests.unit.test_views_model import TABLES, Contents, Entry, expected, make_log

pytestmark = pytest.mark.timeout(240)

SESSION_MS = 3_000
MIGRATIONS = [path.stem for _, path in migrations()]


class Views:
    """A migrated database, its log, and the processes that keep it."""

    def __init__(self, kafka: str, dsns: dict[str, str], folder: Path) -> None:
        self.kafka, self.dsns, self.folder = kafka, dsns, folder
        self.written: list[Entry] = []

    def sink(self, name: str = "views-0") -> Sink:
        return Sink(
            "streams.views",
            self.folder,
            {
                "HEADRACE_KAFKA": self.kafka,
                "HEADRACE_VIEWS_DSN": self.dsns["views_owner"],
                "HEADRACE_SESSION_TIMEOUT_MS": str(SESSION_MS),
                "HEADRACE_COMMIT_INTERVAL_MS": "20",
                "HEADRACE_BATCH_MAX": "40",
                "HEADRACE_LOG_LEVEL": "debug",
            },
            name,
        )

    async def write(self, log: list[Entry], pause_s: float = 0.0) -> None:
        """Write events in transactions, some of which are aborted and written again."""
        rng = random.Random(len(log))
        async with producing(self.kafka, f"views-load-{time.monotonic()}") as transactions:
            for start in range(0, len(log), 20):
                taken = log[start : start + 20]
                records: list[tuple[str, *Sent]] = [
                    (topic, partition, b"key", wire.encode(topic, event))
                    for topic, partition, event in taken
                ]
                if rng.random() < 0.2:
                    await transactions.write(records, commit=False)
                await transactions.write(records)
                self.written += taken
                await asyncio.sleep(pause_s)

    async def run(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[Any]]) -> Any:
        connection = await asyncpg.connect(self.dsns["views_owner"])
        try:
            return await work(connection)
        finally:
            await connection.close()

    async def execute(self, statement: str) -> None:
        await self.run(lambda connection: connection.execute(statement))

    async def contents(self) -> Contents:
        """Everything that the tables hold, as the model says it."""

        async def read(connection: asyncpg.Connection[Any]) -> Contents:
            found: Contents = {}
            for table, width in TABLES.items():
                rows = [plain(row) for row in await connection.fetch(f"select * from {table}")]
                found[table] = {row[0] if width == 1 else row[:width]: row for row in rows}
            return found

        contents: Contents = await self.run(read)
        return contents

    async def await_equal(self, sink: Sink) -> None:
        """Return when the tables are what the whole log says; fail with the difference."""
        wanted = expected(self.written)
        deadline = time.monotonic() + DRAIN_S
        while (found := await self.contents()) != wanted:
            assert time.monotonic() < deadline, (difference(wanted, found), sink.log)
            await asyncio.sleep(0.1)


def plain(row: asyncpg.Record) -> tuple[Any, ...]:
    jsons = {"metadata", "entries"}
    return tuple(orjson.loads(v) if k in jsons else v for k, v in row.items())


def difference(wanted: Contents, found: Contents) -> dict[str, Any]:
    """Name a few rows that differ."""
    return {
        table: [
            (key, wanted[table].get(key), found[table].get(key))
            for key in {*wanted[table], *found[table]}
            if wanted[table].get(key) != found[table].get(key)
        ][:3]
        for table in TABLES
    }


@pytest.fixture
async def views(clean_topics: TopicCleaner, new_database: DatabaseMaker, tmp_path: Path) -> Views:
    dsns = new_database("views")
    assert await migrate(dsns["views_owner"]) == MIGRATIONS
    return Views(clean_topics(), dsns, tmp_path)


async def test_the_views_equal_the_log_after_kill_9_at_any_moment_and_after_replays_from_zero(
    views: Views,
) -> None:
    log = make_log(random.Random(1), 160)
    sink = views.sink()
    with ended(sink):
        for number, point in enumerate(("before_commit:2", "after_commit:2", "")):
            sink.start(crash_point=point)
            part = len(log) // 3 + 1
            await views.write(log[number * part : (number + 1) * part])
            if not point:
                await asyncio.to_thread(sink.await_ready)
                sink.running.kill()
            await asyncio.to_thread(sink.await_death)
        sink.start()
        await views.await_equal(sink)
        await asyncio.to_thread(sink.running.stop)

        # From zero over tables that hold everything, then into empty ones.
        for forget in ("update view_offsets set next_offset = null", "truncate " + all_tables()):
            await views.execute(forget)
            sink.start()
            await until_applied(views, sink)
            assert await views.contents() == expected(views.written)
            await asyncio.to_thread(sink.running.stop)


def all_tables() -> str:
    return ", ".join([*TABLES, "view_offsets"])


async def until_applied(views: Views, sink: Sink) -> None:
    """Return when the stored offsets are past the last committed record of each partition."""
    last = {
        (topic, record.partition): record.offset
        for topic, records in (await committed(views.kafka, TOPICS)).items()
        for record in records
    }
    deadline = time.monotonic() + DRAIN_S
    while True:
        rows = await views.run(lambda c: c.fetch("select * from view_offsets"))
        reached = {(row["topic"], row["partition"]): row["next_offset"] or 0 for row in rows}
        if all(reached.get(place, 0) > offset for place, offset in last.items()):
            return
        assert time.monotonic() < deadline, (reached, last, sink.log)
        await asyncio.sleep(0.1)


async def test_what_can_never_be_applied_goes_to_the_dead_letters_and_the_rest_goes_on(
    views: Views,
) -> None:
    log = make_log(random.Random(2), 60)
    accepted = next(e for t, _, e in reversed(log) if t == PAYMENTS and e["version"] == 1)
    nul = accepted | {"resource_id": "pay_bad", "description": "a\x00b"}
    too_long = next(e for t, _, e in log if t == LEDGER) | {"account_id": None}
    bad: list[tuple[str, *Sent]] = [
        (PAYMENTS, 1, b"k1", wire.encode(PAYMENTS, nul)),
        (PAYMENTS, 2, b"k2", b"\x00not avro"),
        (LEDGER, 3, b"k3", wire.encode(LEDGER, too_long | {"type": "account.opened"})),
    ]
    sink = views.sink()
    with ended(sink):
        await views.write(log[:100])
        async with producing(views.kafka, "bad") as transactions:
            await transactions.write(bad)
        await views.write(log[100:])
        sink.start()
        await views.await_equal(sink)
    letters = await committed(views.kafka, [f"{PAYMENTS}.dlq", f"{LEDGER}.dlq"])
    found = {
        (letter.partition, letter.key, letter.value): dict(letter.headers)
        for letters_of in letters.values()
        for letter in letters_of
    }
    assert set(found) == {record[1:] for record in bad}
    for topic, partition, key, value in bad:
        headers = found[partition, key, value]
        assert headers["dlq.task"] == b"views"
        assert headers["dlq.topic"] == topic.encode()
        assert headers["dlq.partition"] == str(partition).encode()
        assert headers["dlq.offset"].isdigit()
        assert headers["dlq.reason"]


async def test_a_paused_owner_that_wakes_up_behind_another_changes_nothing(views: Views) -> None:
    log = make_log(random.Random(3), 120)
    old, new = views.sink("views-old"), views.sink("views-new")
    with ended(old, new):
        await views.write(log[:200])
        old.start()
        await asyncio.to_thread(old.await_ready)
        old.running.send(signal.SIGSTOP)
        new.start()
        await views.write(log[200:])
        await views.await_equal(new)  # it has taken over what the other one had
        old.running.send(signal.SIGCONT)
        await views.write(make_more(views, 30))
        await views.await_equal(new)
        assert old.running.running()


def make_more(views: Views, payments: int) -> list[Entry]:
    """Payment events of payments that the log does not have yet."""
    return [
        (topic, partition, event | {"resource_id": event["resource_id"] + "x"})
        for topic, partition, event in make_log(random.Random(4), payments)
        if topic == PAYMENTS
    ]


async def test_two_workers_share_the_partitions(views: Views) -> None:
    first, second = views.sink("views-0"), views.sink("views-1")
    with ended(first, second):
        first.start()
        second.start()
        await asyncio.to_thread(first.await_ready)
        await asyncio.to_thread(second.await_ready)
        await views.write(make_log(random.Random(5), 60))
        await views.await_equal(first)


async def test_the_views_recover_by_themselves_when_kafka_and_postgres_come_back(
    views: Views, kafka: Kafka, postgres: Postgres
) -> None:
    log = make_log(random.Random(6), 90)
    sink = views.sink()
    with ended(sink):
        sink.start()
        await asyncio.to_thread(sink.await_ready)
        pid = sink.running.pid
        await views.write(log[:100])
        await asyncio.to_thread(postgres.stop_immediately)
        await views.write(log[100:200])
        await asyncio.to_thread(postgres.start)
        await views.await_equal(sink)
        await asyncio.to_thread(kafka.restart)
        await views.write(log[200:])
        await views.await_equal(sink)
        assert sink.running.running()
        assert sink.running.pid == pid


async def test_only_the_holder_of_the_newest_claim_writes(views: Views) -> None:
    place = (PAYMENTS, 0)
    old = await Store.open(views.dsns["views_owner"], "old")
    new = await Store.open(views.dsns["views_owner"], "new")
    rows = fold((topic, event) for topic, _, event in make_log(random.Random(7), 3))
    try:
        stale = await old.claim([place])
        await old.apply(Rows(), stale, {place: 5})
        claims = await new.claim([place])
        assert claims[place].next == 5
        assert claims[place].epoch > stale[place].epoch
        with pytest.raises(Fenced):
            await old.apply(rows, {place: type(stale[place])(stale[place].epoch, 5)}, {place: 9})
        assert not any((await views.contents()).values())
        await new.apply(rows, claims, {place: 9})
        with pytest.raises(Fenced):
            await new.apply(rows, claims, {place: 10})  # from 5 again, but it stands at 9
    finally:
        await old.close()
        await new.close()


@pytest.mark.parametrize("mid_statement", [False, True])
async def test_an_owner_paused_in_mid_transaction_does_not_hold_up_the_next_one(
    views: Views, mid_statement: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "TRANSACTION_S", 3.0)
    place = (PAYMENTS, 0)
    old = await Store.open(views.dsns["views_owner"], "old")
    new = await Store.open(views.dsns["views_owner"], "new")
    try:
        claim = (await old.claim([place]))[place]
        await old._connection.execute("begin")
        moved = [[PAYMENTS], [0], [claim.epoch], [None], [7]]
        assert await old._connection.execute(statements.ADVANCE, *moved) == "UPDATE 1"
        if mid_statement:  # parsed and not run, which Postgres does not take for idle
            await old._connection.prepare("select 1")
        claims = await new.claim([place])  # the old one sits on the row, and says nothing more
        assert claims[place].next is None
        with pytest.raises(Unavailable):
            await old.apply(Rows(), {place: claim}, {place: 7})
        await new.apply(Rows(), claims, {place: 9})
    finally:
        await old.close()
        await new.close()


async def test_a_refused_value_changes_nothing_and_the_connection_lives_on(views: Views) -> None:
    place = (PAYMENTS, 0)
    keeper = await Store.open(views.dsns["views_owner"], "store")
    try:
        claims = await keeper.claim([place])
        events = [(t, e) for t, _, e in make_log(random.Random(8), 3)]
        accepted = next(e for t, e in events if t == PAYMENTS)
        broken = [*events, (PAYMENTS, accepted | {"resource_id": "pay_new", "identity": "\x00"})]
        with pytest.raises(Poisoned):
            await keeper.apply(fold(broken), claims, {place: 5})
        assert not any((await views.contents()).values())
        await keeper.apply(fold(events), claims, {place: 5})
    finally:
        await keeper.close()


async def test_a_replayed_part_of_the_log_changes_nothing(views: Views) -> None:
    place = (PAYMENTS, 0)
    log = make_log(random.Random(9), 40)
    keeper = await Store.open(views.dsns["views_owner"], "store")
    try:
        for end in (len(log), len(log) // 3, len(log) // 2):
            claims = await keeper.claim([place])
            rows = fold((topic, event) for topic, _, event in log[:end])
            await keeper.apply(rows, claims, {place: (claims[place].next or 0) + 1})
            assert await views.contents() == expected(log)
    finally:
        await keeper.close()


async def test_the_reader_reads_and_writes_nothing(views: Views) -> None:
    reader = await asyncpg.connect(views.dsns["views_reader"])
    try:
        for table in TABLES:
            assert await reader.fetchval(f"select count(*) from {table}") == 0
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await reader.execute(f"delete from {table}")
    finally:
        await reader.close()


async def test_lists_of_payments_run_along_an_index_and_never_sort(views: Views) -> None:
    conditions = {
        "payments_by_time": "tenant = 't1'",
        "payments_by_key": "tenant = 't1' and idempotency_key = 'k77'",
        "payments_by_source": "tenant = 't1' and source_account = 'a7'",
        "payments_by_destination": "tenant = 't1' and destination_account = 'b7'",
        "payments_by_status": "tenant = 't1' and status = 'authorized'",
    }

    async def plans(connection: asyncpg.Connection[Any]) -> dict[str, str]:
        await connection.execute(
            "insert into payments select 'p' || i, 't' || i % 2, 'k' || i, 'i',"
            " case when i % 999 = 0 then 'authorized' else 'settled' end, 2, null,"
            " null, 1, 'EUR', 'a' || i % 50, 'b' || i % 50, 'internal', null, null, null, '{}',"
            " 'r', i, i from generate_series(1, 5000) as s(i)"
        )
        await connection.execute("analyze payments")
        found = {}
        for index, where in conditions.items():
            order = "" if "key" in where else "order by created_at_us desc, payment_id limit 20"
            rows = await connection.fetch(f"explain select * from payments where {where} {order}")
            found[index] = "\n".join(row[0] for row in rows)
        return found

    for index, plan in (await views.run(plans)).items():
        assert index in plan, plan
        assert "Sort" not in plan, plan


SEARCHES = (
    transfers(TransferQuery("t", reference="r7")),
    transfers(TransferQuery("t", reference="r7", metadata=(("n", "1"),), account="a", from_us=5)),
    transfers(TransferQuery("t", metadata=(("n", "1"),), after=Place(9_000, "x"))),
    transfers(TransferQuery("t")),
    list_statement(PaymentQuery("t", reference="r7", status="settled")),
    list_statement(PaymentQuery("t", metadata=(("n", "1"),), to_us=9_000)),
    list_statement(PaymentQuery("t", status="authorized", after=Place(9_000, "x"))),
    holds(HoldQuery("a", after=Place(9_000, "x"))),
)
"""Rare and common values, alone and together."""


async def test_searches_walk_one_index_in_order_and_look_the_rest_up(views: Views) -> None:
    async def plans(connection: asyncpg.Connection[Any]) -> list[str]:
        await connection.execute(
            "insert into transfers select 'x' || i, 't', 'posted', null, null, null, null, null,"
            " 'r' || i % 500, '{}', '[]', i, i, i from generate_series(1, 10000) as s(i);"
            " insert into payments select 'x' || i, 't', 'k' || i, 'i',"
            " case when i % 999 = 0 then 'authorized' else 'settled' end, 2, null, null, 1, 'EUR',"
            " 'a' || i % 50, 'b' || i % 50, 'internal', null, null, null, '{}', 'r', i, i"
            " from generate_series(1, 10000) as s(i);"
            " insert into holds select 'x' || i, 't', 'a' || i % 9, 'x', 'EUR', 5, i % 100, 'open',"
            " i, i, i, i from generate_series(1, 10000) as s(i)"
        )
        for kind in ("transfer", "payment"):
            rows = [
                ("t", tag, n, f"x{n}")
                for n in range(10_000)
                for tag in tags.of(kind, f"r{n % 500}", {"n": str(n % 2)})
            ]
            await connection.execute(statements.TAGS, *statements.columns(rows))
        await connection.execute("analyze")
        found = []
        for statement, arguments in SEARCHES:
            lines = await connection.fetch(f"explain {statement}", *arguments)
            found.append("\n".join(line[0] for line in lines))
        return found

    for plan in await views.run(plans):
        assert "Seq Scan" not in plan, plan
        assert not plan.startswith("Sort"), plan
        assert "->  Sort" not in plan, plan


async def test_migrations_run_once_and_a_sink_without_them_says_what_to_run(
    new_database: DatabaseMaker,
) -> None:
    dsn = new_database("views")["views_owner"]
    with pytest.raises(Unavailable, match=r"python -m streams\.views\.migrate"):
        await Store.open(dsn, "early")
    ran = await asyncio.gather(migrate(dsn), migrate(dsn))
    assert sorted(ran) == [[], MIGRATIONS]
    keeper = await Store.open(dsn, "store")
    await keeper.close()
