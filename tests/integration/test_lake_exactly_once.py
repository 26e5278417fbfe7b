"""Real Kafka, Postgres and Iceberg: bronze holds each committed record once, whatever dies."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from deploy.local.kafka import Kafka
from deploy.local.postgres import Postgres
from schemas import wire
from schemas.errors import Poisoned
from schemas.topics import TOPICS
from streams.lake.bronze.landing import offsets_of
from streams.lake.bronze.tables import table_of
from streams.lake.catalog import open_catalog
from tests.conftest import DatabaseMaker, TopicCleaner
from tests.integration.sink_rig import (
    DRAIN_S,
    ROOT,
    Sent,
    Sink,
    caught_up,
    committed,
    ended,
    producing,
)
from tests.unit.test_views_model import make_log

pytestmark = pytest.mark.timeout(240)

RAW = "payments.changelog"
LANDED = ("payments.events", "ledger.events", "webhooks.events", RAW, "webhooks.changelog")


class Lake:
    """A catalog, a warehouse and the sinks that write them."""

    def __init__(self, kafka: str, dsn: str, folder: Path) -> None:
        self.kafka, self.dsn, self.folder = kafka, dsn, folder
        self.warehouse = (folder / "warehouse").as_uri()

    def sink(self, name: str = "lake-0") -> Sink:
        return Sink(
            "streams.lake",
            self.folder,
            {
                "HEADRACE_KAFKA": self.kafka,
                "HEADRACE_LAKE_CATALOG_DSN": self.dsn,
                "HEADRACE_LAKE_WAREHOUSE": self.warehouse,
                "HEADRACE_LAKE_COMMIT_INTERVAL_MS": "150",
                "HEADRACE_LAKE_BATCH_MAX": "400",
                "HEADRACE_LOG_LEVEL": "debug",
            },
            name,
        )

    def rows(self, topic: str) -> tuple[Counter[tuple[int, int]], Counter[tuple[int, int]]]:
        """Count (partition, offset) in a topic's table and in its table of rejects."""
        spec = table_of(topic)
        catalog = open_catalog(self.dsn, self.warehouse)
        try:
            main = catalog.load_table(spec.name).scan(selected_fields=("_partition", "_offset"))
            good = Counter((r["_partition"], r["_offset"]) for r in main.to_arrow().to_pylist())
            if spec.rejects is None:
                return good, Counter()
            scan = catalog.load_table(spec.rejects).scan(selected_fields=("partition", "offset"))
            bad = Counter((r["partition"], r["offset"]) for r in scan.to_arrow().to_pylist())
            return good, bad
        finally:
            catalog.close()

    def ends(self, topic: str) -> dict[int, int]:
        catalog = open_catalog(self.dsn, self.warehouse)
        try:
            return offsets_of(catalog.load_table(table_of(topic).name).properties)
        finally:
            catalog.close()


@pytest.fixture
def lake(clean_topics: TopicCleaner, new_database: DatabaseMaker, tmp_path: Path) -> Lake:
    return Lake(clean_topics(), new_database("lake")["lake_owner"], tmp_path)


async def write_load(lake: Lake, rng: random.Random, batches: int, pause_s: float = 0.0) -> None:
    """Write transactions over several topics: some aborted, some with undecodable records."""
    log = make_log(rng, batches * 6)
    async with producing(lake.kafka, f"load-{rng.random()}") as transactions:
        while log:
            taken, log = log[:25], log[25:]
            records: list[tuple[str, *Sent]] = [
                (topic, partition, b"key", wire.encode(topic, event))
                for topic, partition, event in taken
            ]
            records += [(RAW, rng.randrange(4), b"\x00k", rng.choice((None, b"\xff\x00state")))] * 3
            for bad in (b"\x00not avro", b"", b"\x00\x00\x00\x00\x07cut"):
                if rng.random() < 0.3:
                    records.append(("payments.events", rng.randrange(4), b"bad", bad))
            await transactions.write(records, commit=rng.random() > 0.15)
            await asyncio.sleep(pause_s)


async def differences(lake: Lake) -> list[str]:
    """Compare the lake with the log read `read_committed`, record by record."""
    found = []
    for topic, records in (await committed(lake.kafka, LANDED)).items():
        good, bad = lake.rows(topic)
        expected = Counter((record.partition, record.offset) for record in records)
        if good + bad != expected:
            lost, extra = expected - (good + bad), (good + bad) - expected
            found.append(f"{topic}: {len(lost)} lost, {len(extra)} doubled of {len(expected)}")
        undecodable = {
            (record.partition, record.offset)
            for record in records
            if not topic.endswith(".changelog") and not decodes(topic, record.value)
        }
        if set(bad) != undecodable:
            found.append(f"{topic}: rejects {sorted(bad)} are not {sorted(undecodable)}")
    return found


def decodes(topic: str, value: bytes) -> bool:
    try:
        wire.decode(topic, value)
    except Poisoned:
        return False
    return True


async def until(condition: Callable[[], Awaitable[bool]], what: str, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)


async def all_landed(lake: Lake, sink: Sink) -> None:
    """Return when the tables have reached the last committed record of each partition."""
    last: dict[TopicPartition, int] = {}
    for topic, records in (await committed(lake.kafka, LANDED)).items():
        for record in records:
            last[TopicPartition(topic, record.partition)] = record.offset

    async def reached() -> bool:
        ends = {topic: lake.ends(topic) for topic in {tp.topic for tp in last}}
        return all(ends[tp.topic].get(tp.partition, 0) > end for tp, end in last.items())

    await until(reached, f"the lake lags: {sink.log}", DRAIN_S)


async def until_dead(lake: Lake, sink: Sink, rng: random.Random) -> None:
    """Write until the sink has reached its crash point."""
    deadline = time.monotonic() + DRAIN_S
    while sink.running.running():
        assert time.monotonic() < deadline, f"it lives on: {sink.log}"
        await write_load(lake, rng, 3)
        await asyncio.sleep(0.3)


async def test_each_committed_record_lands_once_though_the_sink_dies_at_its_worst_moments(
    lake: Lake,
) -> None:
    rng = random.Random(4)
    sink = lake.sink()
    with ended(sink):
        for point in ("between_tables", "after_commit:4", "before_commit:3"):
            sink.start(crash_point=point)
            await until_dead(lake, sink, rng)
        sink.start()
        await write_load(lake, rng, 8)
        await asyncio.to_thread(sink.await_ready)
        sink.running.kill()
        sink.start()
        await all_landed(lake, sink)
    assert await differences(lake) == []
    assert sum(lake.rows("payments.events")[1].values()) > 0, "the load held undecodable records"


async def test_a_paused_sink_that_wakes_up_behind_a_second_one_doubles_nothing(lake: Lake) -> None:
    rng = random.Random(5)
    old, new = lake.sink("lake-old"), lake.sink("lake-new")
    with ended(old, new):
        await write_load(lake, rng, 6)
        old.start()
        await asyncio.to_thread(old.await_ready)
        await write_load(lake, rng, 3)
        old.running.send(signal.SIGSTOP)  # wherever it is
        new.start()
        await asyncio.to_thread(new.await_ready)
        for _ in range(20):
            await write_load(lake, rng, 5, pause_s=0.05)
            old.running.send(signal.SIGCONT)  # both write now
            await write_load(lake, rng, 5, pause_s=0.05)
            if "was advanced by another owner" in old.log + new.log:
                break
            old.running.send(signal.SIGSTOP)
        else:
            pytest.fail("they never wrote at the same time")
        old.running.stop()
        await all_landed(lake, new)
    assert await differences(lake) == []


async def test_the_sink_recovers_by_itself_when_kafka_and_postgres_come_back(
    lake: Lake, kafka: Kafka, postgres: Postgres
) -> None:
    rng = random.Random(6)
    sink = lake.sink()
    with ended(sink):
        sink.start()
        await asyncio.to_thread(sink.await_ready)
        pid = sink.running.pid
        await write_load(lake, rng, 4)
        await asyncio.to_thread(postgres.stop_immediately)
        await write_load(lake, rng, 4)
        await asyncio.to_thread(postgres.start)
        await all_landed(lake, sink)
        await asyncio.to_thread(kafka.restart)
        await write_load(lake, rng, 4)
        await all_landed(lake, sink)
        assert sink.running.running()
        assert sink.running.pid == pid
    assert await differences(lake) == []


async def test_a_stopped_sink_has_landed_what_it_had_read_and_ends_in_time(lake: Lake) -> None:
    sink = lake.sink()
    sink.variables["HEADRACE_LAKE_COMMIT_INTERVAL_MS"] = "600000"
    sink.variables["HEADRACE_LAKE_BATCH_MAX"] = "100000"
    with ended(sink):
        sink.start()
        await asyncio.to_thread(sink.await_ready)
        await write_load(lake, random.Random(7), 6)
        async with producing(lake.kafka, "tombstones") as transactions:
            await transactions.write([("webhooks.changelog", 1, b"k", None)])
        await asyncio.sleep(1.5)  # it has read them, and waits for the interval
        assert all(not lake.ends(topic) for topic in LANDED)
        began = time.monotonic()
        await asyncio.to_thread(sink.running.stop)
        assert time.monotonic() - began < 5.0 + 1.0, sink.log
    await all_landed(lake, sink)
    assert await differences(lake) == []


async def test_every_topic_has_its_table_at_once_and_lag_tools_see_how_far_it_is(
    lake: Lake,
) -> None:
    sink = lake.sink()
    with ended(sink):
        sink.start()
        await asyncio.to_thread(sink.await_ready)
        catalog = open_catalog(lake.dsn, lake.warehouse)
        names = {".".join(name) for name in catalog.list_tables("bronze")}
        catalog.close()
        specs = [table_of(topic) for topic in TOPICS]
        assert names == {s.name for s in specs} | {s.rejects for s in specs if s.rejects}
        await write_load(lake, random.Random(8), 4)
        await until(
            lambda: caught_up(lake.kafka, "lake", TOPICS), f"lag remains: {sink.log}", DRAIN_S
        )
        await all_landed(lake, sink)
        print(readme_answer(lake))


def readme_answer(lake: Lake) -> Any:
    """Run the code of the lake's README against this lake."""
    [block] = re.findall(
        r"```python\n(.*?)```", (ROOT / "streams/lake/README.md").read_text(), re.DOTALL
    )
    stack = {"lake": {"catalog": lake.dsn, "warehouse": lake.warehouse}}
    code = re.sub(r"stack = .*", "", block)
    names: dict[str, Any] = {"stack": stack}
    exec(compile(code, "README.md", "exec"), names)
    return names
