"""The gateway's process on real Kafka: durable before 202, honest without Kafka, back by itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy.local.ports import free_port
from schemas import ids, wire
from streams.views.migrate import migrate
from tests.unit.gateway_rig import KEY, SOURCES, TENANT, Client, is_stopped, payment, until

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 4
ANSWER_WITHIN_S = 2.0
READY_WITHIN_S = 30.0


class Process:
    """`python -m gateways`, started on free ports, and clients of it."""

    def __init__(self, environment, folder):
        self.environment = environment
        self.log = folder / "gateway.log"
        self.port = int(environment["HEADRACE_GATEWAY_PORT"])
        self.child = None

    def start(self):
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "gateways"]
            self.child = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )

    async def call(self, method, path, body=None, **headers):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        client = Client(reader, writer)
        try:
            headers.setdefault("Authorization", f"Bearer {KEY}")
            if body is not None:
                headers.setdefault("Content_Type", "application/json")
            data = None if body is None else json.dumps(body).encode()
            return await client.ask(method, path, data, **headers)
        finally:
            await client.close()

    async def pay(self, key, **headers):
        started = time.monotonic()
        got = await self.call("POST", "/v1/payments", payment(), Idempotency_Key=key, **headers)
        got.seconds = time.monotonic() - started
        return got

    async def status(self, path="/readyz"):
        try:
            return (await self.call("GET", path)).status
        except (ConnectionError, asyncio.IncompleteReadError):
            return 0

    async def becomes(self, status, path="/readyz"):
        for _ in range(int(READY_WITHIN_S / 0.05)):
            if await self.status(path) == status:
                return
            assert self.child.poll() is None, self.log.read_text()
            await asyncio.sleep(0.05)
        pytest.fail(f"{path} is not {status}: {self.log.read_text()[-3000:]}")

    async def ended(self, within_s=5.0):
        return await asyncio.to_thread(self.child.wait, within_s)

    def stop(self):
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.wait()


@pytest.fixture
async def process(tmp_path, clean_topics, new_database):
    dsns = new_database("views")
    await migrate(dsns["views_owner"])
    keys = [{"id": "k", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "tenant": TENANT,
             "scopes": ["*"]}]  # fmt: skip
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    (tmp_path / "sources.json").write_text(json.dumps(SOURCES))
    environment = {
        "PATH": os.environ["PATH"],
        "HEADRACE_KAFKA": clean_topics(PARTITIONS),
        "HEADRACE_GATEWAY_PORT": str(free_port()),
        "HEADRACE_GATEWAY_INDEX": "1",
        "HEADRACE_METRICS_PORT": str(free_port()),
        "HEADRACE_API_KEYS_FILE": str(tmp_path / "keys.json"),
        "HEADRACE_WEBHOOK_SOURCES_FILE": str(tmp_path / "sources.json"),
        "HEADRACE_VIEWS_READER_DSN": dsns["views_reader"],
    }
    made = Process(environment, tmp_path)
    yield made
    made.stop()


async def records(bootstrap, topic="payments.requests"):
    """Return every committed record of a topic, decoded."""
    places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        consumer.assign(places)
        ends, found = await consumer.end_offsets(places), []
        for place, end in ends.items():
            consumer.pause(*places)
            consumer.resume(place)
            while await consumer.position(place) < end:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    found += [wire.decode(topic, record.value) for record in batch]
        return found
    finally:
        await consumer.stop()


@asynccontextmanager
async def processor(bootstrap):
    """Answer every request that waits, in transactions, as the payments task would."""

    async def work():
        async with AIOKafkaProducer(
            bootstrap_servers=bootstrap, transactional_id="test"
        ) as producer:
            async for record in consumer:
                asked = wire.decode("payments.requests", record.value)
                if asked["reply_partition"] is None:
                    continue
                reply = {
                    "request_id": asked["request_id"],
                    "resource_id": asked["resource_id"],
                    "identity": asked["identity"],
                    "status": "settled" if asked["type"] == "payment.create" else "active",
                    "version": 2,
                    "occurred_at_us": asked["received_at_us"] + 1,
                }
                async with producer.transaction():
                    await producer.send(
                        "gateway.replies",
                        wire.encode("gateway.replies", reply),
                        partition=asked["reply_partition"],
                    )

    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition("payments.requests", n) for n in range(PARTITIONS)])
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await consumer.stop()


async def test_what_was_answered_202_is_in_kafka(process):
    process.start()
    await process.becomes(200)
    answers = await asyncio.gather(*(process.pay(f"k{n}") for n in range(50)))
    assert {got.status for got in answers} == {202}
    written = await records(process.environment["HEADRACE_KAFKA"])
    assert {got.json["id"] for got in answers} == {record["resource_id"] for record in written}
    assert len(written) == 50


async def test_a_request_that_waits_is_answered_through_its_reply_partition(process):
    process.start()
    await process.becomes(200)
    async with processor(process.environment["HEADRACE_KAFKA"]):
        got = await process.pay("k", Prefer="wait=20")
        assert (got.status, got.json["status"]) == (201, "settled")
        account = {"currency": "EUR", "kind": "customer"}
        got = await process.call("POST", "/v1/accounts", account, Idempotency_Key="a")
        assert (got.status, got.json["status"]) == (201, "active")
    (paid, _) = await records(process.environment["HEADRACE_KAFKA"])
    assert paid["reply_partition"] == 1


async def test_a_webhook_is_quarantined_before_401(process):
    process.start()
    await process.becomes(200)
    got = await process.call("POST", "/v1/webhooks/demo", {"a": 1})
    assert got.status == 401
    (record,) = await records(process.environment["HEADRACE_KAFKA"], "webhooks.quarantine")
    assert record["delivery_id"] == got.headers["request-id"]


async def test_without_kafka_503_within_2_s_and_back_by_itself(process, kafka):
    process.start()
    await process.becomes(200)
    assert (await process.pay("before")).status == 202
    kafka.kill()
    try:
        sent = [await process.pay(f"gone{n}") for n in range(3)]
        sent += await asyncio.gather(*(process.pay(f"more{n}") for n in range(20)))
        await process.becomes(503)
        sent.append(await process.pay("late"))
        assert {got.status for got in sent} == {503}
        assert {got.headers["retry-after"] for got in sent} == {"1"}
        assert max(got.seconds for got in sent) < ANSWER_WITHIN_S
        assert await process.status("/healthz") == 200
    finally:
        kafka.start()
    await process.becomes(200)
    keys = ["before", *(f"gone{n}" for n in range(3)), *(f"more{n}" for n in range(20)), "late"]
    again = [await process.pay(key) for key in keys]
    assert {got.status for got in again} == {202}
    written = await records(process.environment["HEADRACE_KAFKA"])
    assert {record["idempotency_key"] for record in written} == set(keys)
    assert len({record["resource_id"] for record in written}) == len(keys)


async def test_a_broker_that_answers_nothing_is_503_within_2_s_and_noticed(process, kafka):
    process.start()
    await process.becomes(200)
    kafka.pause()
    try:
        await until(lambda: is_stopped(kafka.pid))
        sent = await asyncio.gather(*(process.pay(f"k{n}") for n in range(10)))
        assert {got.status for got in sent} == {503}
        assert max(got.seconds for got in sent) < ANSWER_WITHIN_S
        await process.becomes(503)
    finally:
        kafka.resume()
    await process.becomes(200)
    assert (await process.pay("k0")).status == 202
    assert "k0" in {
        r["idempotency_key"] for r in await records(process.environment["HEADRACE_KAFKA"])
    }


async def test_it_starts_without_kafka_and_serves_once_there_is_one(process, kafka):
    kafka.stop()
    try:
        process.start()
        await process.becomes(503)
        assert (await process.pay("k")).status == 503
        assert (await process.pay("k", Prefer="wait=1")).status == 503
    finally:
        kafka.start()
    await process.becomes(200)
    async with processor(process.environment["HEADRACE_KAFKA"]):
        assert (await process.pay("k", Prefer="wait=20")).status == 201


async def test_replies_are_heard_again_after_a_broker_restart(process, kafka):
    process.start()
    await process.becomes(200)
    kafka.restart()
    await process.becomes(200)
    async with processor(process.environment["HEADRACE_KAFKA"]):
        assert (await process.pay("k", Prefer="wait=25")).status == 201


async def test_nothing_answered_202_is_lost_through_broker_crashes(process, kafka):
    process.start()
    await process.becomes(200)
    accepted, stop = set(), asyncio.Event()

    async def client(number):
        count = 0
        while not stop.is_set():
            key = f"c{number}-{count}"
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                got = await process.pay(key)
                assert got.status in {202, 503}
                if got.status == 202:
                    accepted.add(got.json["id"])
                    count += 1

    clients = [asyncio.create_task(client(n)) for n in range(8)]
    for _ in range(2):
        await asyncio.sleep(0.5)
        await asyncio.to_thread(kafka.kill)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(kafka.start)
        await process.becomes(200)
    before = len(accepted)
    await until(lambda: len(accepted) >= before + 100, within_s=60)
    stop.set()
    await asyncio.gather(*clients)
    written = {r["resource_id"] for r in await records(process.environment["HEADRACE_KAFKA"])}
    assert accepted
    assert accepted <= written


async def test_sigterm_answers_what_is_in_progress_and_ends_within_5_s(process):
    process.start()
    await process.becomes(200)
    waiting = asyncio.create_task(process.pay("k", Prefer="wait=30"))
    written = []
    while not written:
        written = await records(process.environment["HEADRACE_KAFKA"])
    process.child.send_signal(signal.SIGTERM)
    got = await waiting
    assert (got.status, got.headers["connection"]) == (202, "close")
    assert got.json["id"] == written[0]["resource_id"]
    assert await process.ended() == 0


async def test_sigterm_ends_within_5_s_without_kafka_too(process, kafka):
    kafka.stop()
    try:
        process.start()
        await process.becomes(503)
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
    finally:
        kafka.start()


async def test_metrics_are_served_on_both_ports(process):
    process.start()
    await process.becomes(200)
    metrics = Process(process.environment | {
        "HEADRACE_GATEWAY_PORT": process.environment["HEADRACE_METRICS_PORT"]
    }, process.log.parent)  # fmt: skip
    for place in (process, metrics):
        text = (await place.call("GET", "/metrics")).body.decode()
        assert "headrace_ready 1.0" in text
        assert "headrace_broker_up 1.0" in text


async def test_a_payment_is_logged_under_its_id_when_it_is_sampled(process):
    process.environment["HEADRACE_LOG_SAMPLE"] = "1"
    process.start()
    await process.becomes(200)
    got = await process.pay("k")
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    (line,) = [line for line in lines if line["event"] == "accepted"]
    assert line["payment_id"] == got.json["id"] == ids.payment_id(TENANT, "k", ids_home())
    assert line["request_id"] == got.headers["request-id"]
    assert (line["role"], line["worker"]) == ("gateway", "gateway-1")
    assert KEY not in process.log.read_text()


def ids_home():
    body = payment()
    return ids.home_account(body["source"]["account"], body["destination"]["account"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"HEADRACE_GATEWAY_PROT": "1"}, "did you mean HEADRACE_GATEWAY_PORT"),
        ({"HEADRACE_API_KEYS_FILE": "/nowhere"}, "/nowhere"),
        ({"HEADRACE_GATEWAY_PORT": "x"}, "HEADRACE_GATEWAY_PORT"),
        ({"HEADRACE_GATEWAY_HOST": "192.0.2.1"}, "cannot listen on 192.0.2.1"),
    ],
)
async def test_wrong_settings_end_it_with_a_reason(process, change, says):
    process.environment |= change
    process.start()
    assert await process.ended() == 2
    assert says in process.log.read_text()
