"""The writer as a process, on a real broker and a real Postgres, through crashes and pauses."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import urllib.request
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.admin import connected
from deploy.local.child import Child, Command
from deploy.local.ports import free_port
from ledger_writer.audit import audit
from ledger_writer.crash import POINTS
from ledger_writer.event import COMMANDS, EVENTS, event_bytes
from ledger_writer.kafka import KafkaLogs
from ledger_writer.metrics import STAGES
from ledger_writer.migrate import migrate
from ledger_writer.port import Event
from ledger_writer.postgres import PostgresJournals
from ledger_writer.samples import account, open_account, transfer
from schemas.errors import Unavailable
from schemas.ids import is_guarded, partition_of
from schemas.wire import decode, encode

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 4
SESSION_MS = 2_000
ELSEWHERE = {"in_gap", "after_refused", "on_stop"}
"""Points that only some histories pass: the drills see to them."""
CUSTOMERS = [account(f"customer-{number}") for number in range(40)]
BANK = account("bank", "external")


class Stack:
    """A database, topics, and writers that a test starts, kills and pauses."""

    def __init__(self, bootstrap: str, dsns: dict[str, str], folder: Path) -> None:
        self.bootstrap, self.dsns, self.folder = bootstrap, dsns, folder
        self.sent: Counter[int] = Counter()
        self.children: list[Child] = []
        self.producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)

    def writer(self, name: str = "ledger_writer-0", **more: str) -> Child:
        """Start a writer process."""
        env = {
            "PATH": os.environ["PATH"],
            "HEADRACE_KAFKA": self.bootstrap,
            "HEADRACE_PARTITIONS": str(PARTITIONS),
            "HEADRACE_LEDGER_DSN": self.dsns["ledger_writer"],
            "HEADRACE_WORKER": name,
            "HEADRACE_SESSION_TIMEOUT_MS": str(SESSION_MS),
            "HEADRACE_BATCH_MAX": "200",
            **more,
        }
        argv = (sys.executable, "-m", "ledger_writer")
        child = Child(Command(name, argv, self.folder / f"{name}.log", env, ROOT))
        child.start()
        self.children.append(child)
        return child

    async def send(self, records: Iterable[dict | bytes]) -> None:
        """Append commands, each to its home's partition; raw bytes to partition 0."""
        futures = []
        for record in records:
            raw = isinstance(record, bytes)
            partition = 0 if raw else partition_of(record["slot"], PARTITIONS)
            futures.append(
                await self.producer.send(
                    COMMANDS,
                    record if raw else encode(COMMANDS, record),
                    key=b"key" if raw else record["home_account"].encode(),
                    partition=partition,
                    headers=[("traceparent", b"00-abc-def-01")],
                )
            )
            self.sent[partition] += 1
        await asyncio.gather(*futures)

    async def fences(self) -> dict[int, asyncpg.Record]:
        connection = await asyncpg.connect(self.dsns["ledger_reader"])
        try:
            found = await connection.fetch("select * from ledger.partitions")
        finally:
            await connection.close()
        return {line["partition"]: line for line in found}

    async def decided(self) -> bool:
        """Tell whether every record sent has its row, or was dead-lettered."""
        try:
            fences = await self.fences()
        except (OSError, asyncpg.PostgresError):
            return False
        return all(
            number in fences
            and fences[number]["next_position"] - 1 + fences[number]["poisoned"] >= count
            for number, count in self.sent.items()
        )

    async def until(self, condition: Callable[[], object], within_s: float = 60) -> None:
        async with asyncio.timeout(within_s):
            while not await condition():  # noqa: ASYNC110  processes can't set an event
                await asyncio.sleep(0.05)

    async def records(self, topic: str) -> dict[int, list]:
        """Read a whole topic."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await consumer.start()
        try:
            tps = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            consumer.assign(tps)
            await consumer.seek_to_beginning()
            ends = await consumer.end_offsets(tps)
            found: dict[int, list] = defaultdict(list)
            for tp, end in ends.items():
                while await consumer.position(tp) < end:
                    found[tp.partition] += (await consumer.getmany(tp, timeout_ms=200)).get(tp, [])
        finally:
            await consumer.stop()
        return found

    async def published(self) -> bool:
        """Tell whether every row has its event."""
        fences, shown = await self.fences(), await self.records(EVENTS)
        return all(
            {decode(EVENTS, record.value)["position"] for record in shown[number]}
            == set(range(1, fence["next_position"]))
            for number, fence in fences.items()
        )

    async def prove(self) -> list[dict]:
        """Wait for the end, check everything that must hold, and return the distinct events.

        One row a record, rows and balances audited, one event a row, and every event on the topic
        the same bytes as the one rebuilt from the journal, however often it was published.
        """
        await self.until(self.decided)
        await self.until(self.published)
        for number, fence in (await self.fences()).items():
            rows = fence["next_position"] - 1 + fence["poisoned"]
            assert rows == self.sent[number], f"partition {number}"
        result = await audit(self.dsns["ledger_reader"], PARTITIONS)
        assert result["findings"] == []
        return await self.compared(await self.records(EVENTS))

    async def compared(self, shown: dict[int, list]) -> list[dict]:
        events = []
        journals = PostgresJournals(self.dsns["ledger_reader"], "test", PARTITIONS)
        async with journals.open() as journal:
            for number, records in shown.items():
                rebuilt = {
                    row.position: event_bytes(row) for row in await journal.rows(number, 1, 50_000)
                }
                highest = 0
                for record in records:
                    event = decode(EVENTS, record.value)
                    position = event["position"]
                    assert record.value == rebuilt[position]
                    assert record.key == event["home_account"].encode()
                    assert position <= highest + 1, "events are never ahead of their order"
                    if position > highest:
                        events.append(event)
                    highest = max(highest, position)
        return events

    async def balance(self, account_id: str) -> int:
        connection = await asyncpg.connect(self.dsns["ledger_reader"])
        try:
            sql = "select posted_minor from ledger.balances where account_id = $1"
            return await connection.fetchval(sql, account_id)
        finally:
            await connection.close()


@pytest.fixture
async def stack(clean_topics, new_database, tmp_path) -> AsyncIterator[Stack]:
    dsns = new_database("ledger")
    await migrate(dsns["ledger_owner"])
    stack = Stack(clean_topics(PARTITIONS), dsns, tmp_path)
    await stack.producer.start()
    try:
        yield stack
    finally:
        await stack.producer.stop()
        for child in stack.children:
            child.stop()


def opening() -> list[dict]:
    return [open_account(each) for each in (*CUSTOMERS, BANK)]


def funding() -> list[dict]:
    return [transfer(f"fund-{each}", (BANK, each, 10_000)) for each in CUSTOMERS]


def load(count: int, seed: int = 1) -> list[dict]:
    """Return transfers among all customers: some repeated, some with a key used twice."""
    rng = random.Random(seed)
    records: list[dict] = []
    for number in range(count):
        payer, payee = rng.sample(CUSTOMERS, 2)
        key = f"pay-{seed}-{number}"
        records.append(transfer(key, (payer, payee, rng.randint(1, 300))))
        if number % 20 == 7:
            records.append(rng.choice(records))
        if number % 50 == 9:
            other, payee = rng.sample(CUSTOMERS, 2)
            records.append(transfer(key, (other, payee, 1)))
    return records


async def begin(stack: Stack) -> None:
    """Open and fund the accounts, and wait for it."""
    await stack.send(opening())
    await stack.until(stack.decided)
    await stack.send(funding())
    await stack.until(stack.decided)


async def trickle(stack: Stack, records: list[dict], chunk: int = 50) -> None:
    """Send a load over some seconds."""
    for at in range(0, len(records), chunk):
        await stack.send(records[at : at + chunk])
        await asyncio.sleep(0.02)


async def test_commands_become_postings_and_events(stack):
    port = free_port()
    stack.writer(HEADRACE_METRICS_PORT=str(port))
    await begin(stack)
    payer, payee = CUSTOMERS[:2]
    pay = transfer("k", (payer, payee, 700), reference="r-1", metadata={"order": "7"})
    await stack.send([pay])
    await stack.until(stack.decided)
    poor = transfer("poor", (payer, payee, 9_301))
    elsewhere = next(each for each in CUSTOMERS if _home(each) != _home(payer))
    reused = transfer("k", (elsewhere, payee, 700))
    await stack.send([pay, poor, reused, {**pay, "attempt": 2}])
    events = await stack.prove()
    told = [
        (event["type"], event["reason"], event["repeated"])
        for event in events
        if event["identity"] in {pay["identity"], poor["identity"]}
    ]
    assert sorted(told, key=str) == sorted(
        [
            ("transfer.posted", None, False),
            ("transfer.posted", None, True),
            ("transfer.posted", None, True),
            ("transfer.rejected", "insufficient_funds", False),
            ("transfer.rejected", "idempotency_key_reused", False),
        ],
        key=str,
    )
    assert await stack.balance(payer) == 9_300
    assert await stack.balance(BANK) == -10_000 * len(CUSTOMERS)
    traces = {record.headers for each in (await stack.records(EVENTS)).values() for record in each}
    assert traces == {(("traceparent", b"00-abc-def-01"),)}
    page = await asyncio.to_thread(
        lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    )
    here = f'partition="{_home(payer)}"'
    assert f'headrace_ledger_rejections_total{{{here},reason="insufficient_funds"}} 1.0' in page
    assert f'headrace_ledger_outcomes_total{{{here},type="transfer.rejected"}}' in page
    assert "headrace_ready 1.0" in page


async def test_the_group_is_told_how_far_the_ledger_is(stack):
    stack.writer()
    await begin(stack)
    await stack.prove()
    fences = await stack.fences()

    async def told() -> bool:
        async with connected(stack.bootstrap) as admin:
            offsets = await admin.list_consumer_group_offsets("ledger_writer")
        hints = {tp.partition: each.offset for tp, each in offsets.items()}
        return hints == {number: fence["next_offset"] for number, fence in fences.items()}

    await stack.until(told)


async def test_a_fence_raised_by_nobody_who_stays_is_taken_again(stack):
    stack.writer()
    await begin(stack)
    journals = PostgresJournals(stack.dsns["ledger_writer"], "passer-by", PARTITIONS)
    async with journals.open() as journal:
        for number in range(PARTITIONS):
            await journal.acquire(number, None)
    await stack.send(load(100))
    await stack.prove()
    assert "taking the fence again" in (stack.folder / "ledger_writer-0.log").read_text()


async def test_each_metric_tells_of_what_happens(stack):
    port = free_port()
    stack.writer(HEADRACE_METRICS_PORT=str(port))
    await begin(stack)
    payer, payee = CUSTOMERS[:2]
    poor = transfer("poor", (payer, payee, 99_999))
    await stack.send([poor, transfer("lost", (payer, account("nobody"), 1)), b"poison"])
    await stack.until(stack.decided)
    again = [poor, {**poor, "attempt": 2}]
    await stack.send(again)
    await stack.until(stack.decided)
    journals = PostgresJournals(stack.dsns["ledger_writer"], "passer-by", PARTITIONS)
    async with journals.open() as journal:
        for number in range(PARTITIONS):
            await journal.acquire(number, None)
    await stack.send(load(40))
    await stack.prove()
    shown = await _metrics(port)
    moved = {name for name, value in shown.items() if value > 0}
    for reason in ("insufficient_funds", "account_not_found"):
        assert f"rejections_total {reason}" in moved
    for stage in STAGES:
        assert f"stage_seconds_count {stage}" in moved
    assert {
        "batch_records_count",
        "batch_records_sum",
        "foreign_share_staleness_seconds_count",
        "foreign_share_staleness_seconds_sum",
        "journal_to_events_seconds_count",
        "fence_losses_total",
        "share_reads_total",
        "repeats_total",
        "poisoned_total",
        "outcomes_total transfer.posted",
    } <= moved
    assert shown["sessions_total"] > PARTITIONS
    assert shown["running"] == PARTITIONS
    assert shown["batch_records_sum"] >= sum(stack.sent.values())


async def test_poison_is_dead_lettered_byte_for_byte_and_the_rest_goes_on(stack):
    stack.writer()
    await begin(stack)
    bank_pays = transfer("zero", (BANK, CUSTOMERS[0], 5))
    bank_pays["legs"][0]["amount_minor"] = 0
    await stack.send([b"garbage", bank_pays, transfer("good", (BANK, CUSTOMERS[0], 5)), b""])
    await stack.prove()
    buried = [each for part in (await stack.records(f"{COMMANDS}.dlq")).values() for each in part]
    assert Counter(record.value for record in buried) == Counter(
        [b"garbage", encode(COMMANDS, bank_pays), b""]
    )
    for record in buried:
        headers = dict(record.headers)
        assert headers["dlq.topic"] == COMMANDS.encode()
        assert headers["dlq.reason"]
    fences = await stack.fences()
    assert sum(fence["poisoned"] for fence in fences.values()) == 3


async def test_aborted_commands_are_not_decided(stack):
    stack.writer()
    await begin(stack)
    producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap, transactional_id="streams-test")
    await producer.start()
    try:
        for number, commit in enumerate([True, False, True, False]):
            record = transfer(f"txn-{number}", (CUSTOMERS[0], CUSTOMERS[1], 1))
            partition = partition_of(record["slot"], PARTITIONS)
            await producer.begin_transaction()
            await producer.send_and_wait(COMMANDS, encode(COMMANDS, record), partition=partition)
            if commit:
                await producer.commit_transaction()
                stack.sent[partition] += 1
            else:
                await producer.abort_transaction()
    finally:
        await producer.stop()
    await stack.prove()
    assert await stack.balance(CUSTOMERS[0]) == 9_998


@pytest.mark.timeout(180)
async def test_kill_9_in_mid_load_loses_and_doubles_nothing(stack):
    writer = stack.writer()
    await begin(stack)
    sending = asyncio.create_task(trickle(stack, load(3_000)))
    for _ in range(3):
        await stack.until(_moved(stack, by=150))
        writer.kill()
        writer.start()
    await sending
    events = await stack.prove()
    reasons = Counter(event["reason"] for event in events)
    assert reasons["idempotency_key_reused"]
    assert sum(event["repeated"] for event in events)


@pytest.mark.timeout(240)
async def test_a_crash_at_any_step_loses_and_doubles_nothing(stack):
    await stack.send(opening())
    await stack.send(funding())
    for number, point in enumerate(each for each in POINTS if each not in ELSEWHERE):
        await stack.send([*load(60, seed=number), b"poison"])
        passes = 1 if point == "after_bury" else 2
        child = stack.writer(HEADRACE_CRASH_POINT=f"{point}:{passes}")
        await stack.until(_ended(child))
        assert child.process.returncode == -signal.SIGKILL, point
    stack.writer()
    await stack.prove()


@pytest.mark.timeout(180)
async def test_a_paused_writer_that_wakes_up_writes_nothing(stack):
    zombie = stack.writer("ledger_writer-0")
    await begin(stack)
    sending = asyncio.create_task(trickle(stack, load(3_000)))
    await asyncio.sleep(0.3)
    zombie.send(signal.SIGSTOP)
    before = await stack.fences()
    stack.writer("ledger_writer-1")

    async def taken_over() -> bool:
        fences = await stack.fences()
        return all(fences[number]["epoch"] > before[number]["epoch"] for number in fences)

    await stack.until(taken_over)
    await asyncio.sleep(0.3)
    zombie.send(signal.SIGCONT)
    await sending
    await stack.prove()
    # Which of the two tells it first is chance: the fence, as it commits, or the group.
    said = (stack.folder / "ledger_writer-0.log").read_text()
    assert "fenced" in said or "re-joining group" in said


@pytest.mark.timeout(180)
async def test_a_second_writer_shares_the_partitions_and_its_death_gives_them_back(stack):
    stack.writer("ledger_writer-0")
    await begin(stack)
    sending = asyncio.create_task(trickle(stack, load(2_000)))
    second = stack.writer("ledger_writer-1")

    async def sharing() -> bool:
        return "partition ready" in second.log_tail(1_000)

    await stack.until(sharing)
    second.kill()
    await sending
    await stack.prove()


@pytest.mark.timeout(180)
async def test_postgres_restarted_in_mid_load_loses_and_doubles_nothing(stack, postgres):
    writer = stack.writer()
    await begin(stack)
    sending = asyncio.create_task(trickle(stack, load(2_000)))
    for _ in range(2):
        await asyncio.sleep(0.3)
        await asyncio.to_thread(postgres.stop_immediately)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(postgres.start)
    await sending
    await stack.prove()
    assert writer.running()


@pytest.mark.timeout(180)
async def test_kafka_restarted_in_mid_load_loses_and_doubles_nothing(stack, kafka):
    writer = stack.writer()
    await begin(stack)
    await stack.send(load(1_000))
    await asyncio.to_thread(kafka.kill)
    await asyncio.to_thread(kafka.start)
    await stack.send(load(1_000, seed=2))
    await stack.prove()
    assert writer.running()


async def test_a_send_given_up_in_mid_retry_ends_its_session_and_nothing_else(
    stack, kafka, monkeypatch, caplog
):
    monkeypatch.setattr("ledger_writer.kafka.SEND_WITHIN_S", 1.0)
    event = Event(b"key", b"value", None)

    async def interrupted(partition: int) -> None:
        async with KafkaLogs(stack.bootstrap, "test").open(partition, 0) as log:
            await log.publish([event])
            kafka.pause()
            sending = asyncio.create_task(log.publish([event]))
            await asyncio.sleep(0.2)
            kafka.kill()
            await sending

    for partition in range(2):
        with pytest.raises(Unavailable, match="send to"):
            await interrupted(partition)
        await asyncio.to_thread(kafka.start)
    assert "Unexpected error" not in caplog.text


async def test_it_ends_cleanly_on_sigterm_and_goes_on_from_there(stack):
    writer = stack.writer()
    await begin(stack)
    writer.send(signal.SIGTERM)
    await stack.until(_ended(writer), within_s=5)
    assert writer.process.returncode == 0
    await stack.send(load(100))
    stack.writer()
    await stack.prove()


async def test_it_ends_on_sigterm_when_nothing_answers(stack, kafka, postgres):
    writer = stack.writer()
    await begin(stack)
    kafka.pause()
    postgres.pause()
    try:
        writer.send(signal.SIGTERM)
        await stack.until(_ended(writer), within_s=20)
    finally:
        kafka.resume()
        postgres.resume()
    assert writer.process.returncode == 0


async def test_a_database_without_tables_is_named_in_plain_words(stack, new_database):
    empty = new_database("ledger")
    writer = stack.writer(HEADRACE_LEDGER_DSN=empty["ledger_writer"])
    await stack.until(_ended(writer))
    assert writer.process.returncode == 65
    assert "python -m ledger_writer.migrate" in writer.log_tail()


async def test_another_partition_count_than_the_topics_is_refused(stack):
    writer = stack.writer(HEADRACE_PARTITIONS="3")
    await stack.until(_ended(writer))
    assert writer.process.returncode == 65
    assert "HEADRACE_PARTITIONS is 3" in writer.log_tail()


async def _metrics(port: int) -> dict[str, float]:
    """Return what the writer shows of itself, added up over its partitions."""
    page = await asyncio.to_thread(
        lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    )
    shown: Counter[str] = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("partition", "le")}
            name = sample.name.removeprefix("headrace_ledger_")
            shown[" ".join([name, *labels.values()])] += sample.value
    return shown


def _ended(child: Child):
    async def ended() -> bool:
        return not child.running()

    return ended


def _moved(stack: Stack, by: int):
    """Tell, from the first time it is asked, when the journal has grown by so many rows."""
    first: list[int] = []

    async def moved() -> bool:
        position = sum(fence["next_position"] for fence in (await stack.fences()).values())
        first.append(position)
        return position >= first[0] + by

    return moved


def _home(account_id: str) -> int:
    assert is_guarded(account_id)
    return int(account_id[6:9], 16) % PARTITIONS
