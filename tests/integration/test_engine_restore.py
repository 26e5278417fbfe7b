"""A restore on real Kafka: what it applies, how it tells of it, and what an interruption leaves."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from deploy.local.admin import connected
from deploy.local.kafka import Kafka
from schemas.errors import Unavailable
from streams.engine import EngineSettings
from streams.engine.crash import CrashPoint
from streams.engine.restore import Restored, Source, restore
from streams.engine.store import Disk, Store
from tests.conftest import NewTopicMaker

KEYS = 3_000
FILL = b"." * 3_000


@pytest.fixture
async def source(kafka: Kafka, new_topic: NewTopicMaker) -> Source:
    """A changelog of several fetches: every key once, some again, some taken away or aborted."""
    changelog = new_topic("changelog", 1)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, transactional_id=changelog, max_batch_size=256 * 1024
    ) as producer:
        async with producer.transaction():
            await append(producer, changelog, {name(at): FILL for at in range(KEYS)})
        await producer.begin_transaction()
        await append(producer, changelog, {name(at): b"aborted" for at in range(KEYS)})
        await producer.abort_transaction()
        async with producer.transaction():
            changes: dict[bytes, bytes | None] = {name(at): None for at in range(0, KEYS, 3)}
            await append(producer, changelog, changes | {name(1): b"last"})
    return Source(TopicPartition(changelog, 0), "cluster")


def name(at: int) -> bytes:
    return b"\x00\x01\x01%06d" % at


async def append(producer: Any, topic: str, changes: dict[bytes, bytes | None]) -> None:
    sent = [await producer.send(topic, value, key, 0) for key, value in changes.items()]
    await asyncio.gather(*sent)


def truth() -> list[tuple[bytes, bytes]]:
    return [(name(at), b"last" if at == 1 else FILL) for at in range(KEYS) if at % 3]


@pytest.fixture
def settings(kafka: Kafka, tmp_path: Path) -> EngineSettings:
    return EngineSettings(
        kafka=kafka.bootstrap, worker="w", state_dir=tmp_path, session_timeout_ms=2_000
    )


async def run(
    store: Store, source: Source, settings: EngineSettings, told: list[tuple[int, int]]
) -> Restored:
    def progress(reached: int, end: int) -> None:
        told.append((reached, end))

    return await restore(store, source, settings, CrashPoint(), progress)


async def test_an_empty_store_gets_all_that_is_committed_and_tells_how_far_it_is(
    source: Source, settings: EngineSettings, tmp_path: Path
) -> None:
    store, told = Disk(tmp_path).open("t", 0), list[tuple[int, int]]()
    done = await run(store, source, settings, told)
    assert (done.rebuilt, done.records) == (True, KEYS + KEYS // 3 + 1)
    assert list(store.items()) == truth()
    reached = [each for each, _ in told]
    assert len(set(reached)) > 3
    assert reached == sorted(reached)
    assert told[-1][0] == told[-1][1]
    again = await run(store, source, settings, told)
    assert (again.rebuilt, again.records) == (False, 0)
    store.close()


async def test_a_restore_tells_where_the_inputs_begin(
    kafka: Kafka,
    source: Source,
    settings: EngineSettings,
    tmp_path: Path,
    new_topic: NewTopicMaker,
) -> None:
    empty, cut = (TopicPartition(new_topic(each, 1), 0) for each in ("empty", "cut"))
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await append(producer, cut.topic, {name(at): FILL for at in range(5)})
    async with connected(kafka.bootstrap) as admin:
        await admin.delete_records({cut: RecordsToDelete(before_offset=3)})
    store = Disk(tmp_path).open("t", 0)
    done = await run(store, replace(source, inputs=(empty, cut)), settings, [])
    assert done.firsts == {empty: 0, cut: 3}
    store.close()


async def test_a_restore_that_was_interrupted_begins_anew_and_is_whole(
    source: Source, settings: EngineSettings, tmp_path: Path
) -> None:
    store = Disk(tmp_path).open("t", 0)

    def interrupt(reached: int, end: int) -> None:
        raise Unavailable(f"at {reached} of {end}")

    with pytest.raises(Unavailable, match="of"):
        await restore(store, source, settings, CrashPoint(), interrupt)
    store.close()
    store = Disk(tmp_path).open("t", 0)
    assert store.mark() is None
    done = await run(store, source, settings, [])
    assert (done.rebuilt, done.records) == (True, KEYS + KEYS // 3 + 1)
    assert list(store.items()) == truth()
    store.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_broker_that_falls_silent_ends_a_restore_within_the_deadline(
    kafka: Kafka, source: Source, settings: EngineSettings, tmp_path: Path
) -> None:
    store = Disk(tmp_path).open("t", 0)

    def freeze(reached: int, end: int) -> None:
        if reached < end:
            kafka.pause()

    async def silenced() -> None:
        async with asyncio.timeout(10):
            await restore(store, source, settings, CrashPoint(), freeze)

    try:
        with pytest.raises(Unavailable):
            # In a loop of its own: what the client gave up half open ends with that.
            await asyncio.to_thread(asyncio.run, silenced())
    finally:
        kafka.resume()
    done = await run(store, source, settings, [])
    assert done.rebuilt
    assert list(store.items()) == truth()
    store.close()
    gc.collect()  # what the client gave up is found here, not in a later test
