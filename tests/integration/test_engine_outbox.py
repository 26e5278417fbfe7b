"""The outbox on real Kafka: what it takes over, settles, commits and refuses to commit."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from aiokafka import TopicPartition

from deploy.local.kafka import Kafka
from schemas.errors import Fenced, Unavailable
from streams.engine import EngineSettings
from streams.engine.crash import CrashPoint
from streams.engine.faults import Refused
from streams.engine.outbox import Outbox, Parcel
from tests.conftest import NewTopicMaker
from tests.integration.engine_rig import consuming


@pytest.fixture
def settings(kafka: Kafka) -> EngineSettings:
    return EngineSettings(kafka=kafka.bootstrap, worker="w", state_dir=Path("/nowhere"))


@pytest.fixture
def topics(new_topic: NewTopicMaker) -> tuple[str, str]:
    """An output and a changelog; the output takes batches of 100 kB."""
    return new_topic("out", 2, {"max.message.bytes": "100000"}), new_topic("changelog", 2)


def parcel(topics: tuple[str, str], value: bytes = b"v") -> Parcel:
    out, changelog = topics
    return Parcel({(out, 0): [(b"k", value, ())]}, (changelog, 0), {b"state": b"1"}, {})


async def opened(topics: tuple[str, str], settings: EngineSettings) -> Outbox:
    box = Outbox(f"{topics[1]}-0", "group", settings, CrashPoint())
    await box.open()
    return box


async def ends(kafka: Kafka, topic: str, isolation: str) -> list[int]:
    async with consuming(kafka.bootstrap, isolation_level=isolation) as consumer:
        tps = [TopicPartition(topic, number) for number in (0, 1)]
        found = await consumer.end_offsets(tps)
        return [found[tp] for tp in tps]


async def committed(kafka: Kafka, topic: str) -> list[Any]:
    async with consuming(kafka.bootstrap, isolation_level="read_committed") as consumer:
        tps = [TopicPartition(topic, number) for number in (0, 1)]
        found = await consumer.end_offsets(tps)
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        records: list[Any] = []
        while any([await consumer.position(tp) < found[tp] for tp in tps]):
            for fetched in (await consumer.getmany(timeout_ms=100)).values():
                records += fetched
        return records


async def test_a_parcel_is_committed_whole_and_its_changelog_offset_told(
    kafka: Kafka, topics: tuple[str, str], settings: EngineSettings
) -> None:
    box = await opened(topics, settings)
    first, _ = await box.transact(parcel(topics))
    second, _ = await box.transact(parcel(topics))
    await box.close()
    assert (first, second) == (1, 3), "each commit is followed by a marker"
    assert [len(await committed(kafka, topic)) for topic in topics] == [2, 2]


async def test_offsets_are_committed_with_their_own_parcel_and_with_no_other(
    kafka: Kafka, topics: tuple[str, str], settings: EngineSettings
) -> None:
    group, tp, changelog = topics[1], TopicPartition(topics[0], 1), (topics[1], 0)
    async with consuming(kafka.bootstrap, group_id=group) as consumer:
        consumer.assign([tp])
        for turn in range(3):
            box = Outbox(f"{group}-0", group, settings, CrashPoint())
            await box.open()
            # One right behind another: the second begins while the markers of the first are
            # written, and must not become part of it.
            for value, offset in ((b"v", 2 * turn + 1), (b"v", 2 * turn + 2), (bytes(300_000), 99)):
                outputs = {(topics[0], 0): [(b"k", value, ())]}
                going = box.transact(Parcel(outputs, changelog, {b"state": b"1"}, {tp: offset}))
                with contextlib.suppress(Refused):
                    await going
            await box.close()
            # Opening waits until the markers of the last transaction are written.
            after = await opened(topics, settings)
            await after.close()
            assert await consumer.committed(tp) == 2 * turn + 2
    assert len(await committed(kafka, topics[0])) == 6


async def test_a_parcel_of_several_batches_arrives_whole_and_in_order(
    kafka: Kafka, topics: tuple[str, str], settings: EngineSettings
) -> None:
    box = await opened(topics, settings)
    changes: dict[bytes, bytes | None] = {b"%d" % number: bytes(200_000) for number in range(7)}
    offset, _ = await box.transact(Parcel({}, (topics[1], 0), changes, {}))
    await box.close()
    assert offset == 7, "the changelog's next offset is told from its last batch"
    assert [record.key for record in await committed(kafka, topics[1])] == list(changes)


async def test_a_refused_record_commits_nothing_of_its_parcel(
    kafka: Kafka, topics: tuple[str, str], settings: EngineSettings
) -> None:
    box = await opened(topics, settings)
    with pytest.raises(Refused):
        await box.transact(parcel(topics, bytes(300_000)))
    await box.close()
    assert [await committed(kafka, topic) for topic in topics] == [[], []]
    assert await ends(kafka, topics[1], "read_committed") == await ends(
        kafka, topics[1], "read_uncommitted"
    ), "the abort leaves nobody waiting"


async def test_the_former_owner_can_commit_nothing_after_a_take_over(
    kafka: Kafka, topics: tuple[str, str], settings: EngineSettings
) -> None:
    former = await opened(topics, settings)
    await former.transact(parcel(topics))
    owner = await opened(topics, settings)
    with pytest.raises(Fenced):
        await former.transact(parcel(topics))
    await owner.transact(parcel(topics))
    await former.close()
    await owner.close()
    assert len(await committed(kafka, topics[0])) == 2


async def test_settling_aborts_whatever_the_id_has_left_open_anywhere(
    kafka: Kafka, topics: tuple[str, str], settings: EngineSettings
) -> None:
    box = await opened(topics, settings)
    begin = box._begin

    async def begin_with_leftovers() -> None:
        await begin()
        await box._producer.send(topics[0], b"left open", partition=1)

    box._begin = begin_with_leftovers  # type: ignore[method-assign]
    await box.settle([topics[0]], [(topics[1], 0)], {TopicPartition(topics[0], 0): 0})
    box._begin = begin  # type: ignore[method-assign]
    # The next transaction begins only when the markers are written.
    await box.transact(Parcel({}, (topics[1], 1), {b"state": b"1"}, {}))
    await box.close()
    assert await ends(kafka, topics[0], "read_uncommitted") == [1, 2]
    assert (await ends(kafka, topics[1], "read_uncommitted"))[0] == 1
    assert await committed(kafka, topics[0]) == []


async def test_a_lost_connection_is_an_interruption_even_when_the_client_would_go_on(
    topics: tuple[str, str], settings: EngineSettings
) -> None:
    box = await opened(topics, settings)
    await box.transact(parcel(topics))
    for connection in list(box._producer.client._conns.values()):
        connection._writer.transport.abort()
    await asyncio.sleep(0.1)
    with pytest.raises(Unavailable, match="connection to the broker was lost"):
        await box.transact(parcel(topics))
    await box.close()


async def test_a_broker_that_lists_no_broker_yet_is_unavailable(
    topics: tuple[str, str], settings: EngineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that was away for longer than its own session is not part of its cluster for a moment.
    box = Outbox(f"{topics[1]}-0", "group", settings, CrashPoint())
    monkeypatch.setattr(box._producer.client, "get_random_node", lambda: None)
    with pytest.raises(Unavailable, match="not part of its cluster"):
        await box.open()
    await box.close()


async def test_a_broker_that_does_not_answer_is_unavailable_within_the_deadline(
    kafka: Kafka, topics: tuple[str, str], settings: EngineSettings
) -> None:
    hasty = EngineSettings(
        kafka=settings.kafka,
        worker="w",
        state_dir=Path("/nowhere"),
        session_timeout_ms=2_000,
        transaction_timeout_ms=2_500,
    )
    box = await opened(topics, hasty)
    await box.transact(parcel(topics))
    kafka.pause()
    try:
        with pytest.raises(Unavailable):
            async with asyncio.timeout(10):
                await box.transact(parcel(topics))
        async with asyncio.timeout(10):
            await box.close()
    finally:
        kafka.resume()


def test_this_test_uses_the_client_that_the_engine_is_built_on() -> None:
    assert aiokafka.__version__ == "0.14.0", "the outbox relies on internals of this version"
