"""The embedded Kafka and Postgres: they survive crashes, and keep strangers out."""

from __future__ import annotations

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition


async def _send(bootstrap: str, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, partition=0)
    finally:
        await producer.stop()


async def _read(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_an_acknowledged_record_survives_kill_9_of_the_broker(kafka, new_topic):
    topic = new_topic()
    await _send(kafka.bootstrap, topic, b"before")
    kafka.kill()
    kafka.start()
    await _send(kafka.bootstrap, topic, b"after")
    assert await _read(kafka.bootstrap, topic, 2) == [b"before", b"after"]


async def test_clean_topics_start_empty(kafka, clean_topics):
    clean_topics()
    await _send(kafka.bootstrap, "payments.requests", b"old")
    clean_topics()
    await _send(kafka.bootstrap, "payments.requests", b"new")
    assert await _read(kafka.bootstrap, "payments.requests", 1) == [b"new"]


async def test_a_committed_row_survives_kill_9_of_the_server(postgres, new_database):
    dsn = new_database("ledger")["ledger_owner"]
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table kept as select 7 as number")
    postgres.kill()
    connection.terminate()
    postgres.start()
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("select number from kept") == 7
    await connection.close()


@pytest.mark.parametrize(
    ("role", "database"),
    [
        ("ledger_writer", "views"),
        ("ledger_owner", "lake"),
        ("views_owner", "ledger"),
        ("lake_owner", "views"),
        ("views_reader", "postgres"),
    ],
)
async def test_no_role_connects_to_a_database_that_is_not_its_own(postgres, role, database):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(postgres.address.dsn(role, database))


async def test_a_wrong_password_is_refused(postgres):
    dsn = postgres.address.dsn("ledger_writer", "ledger")
    wrong = dsn.replace(postgres.address.passwords["ledger_writer"], "guess")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)
