"""What waits for a partition: bounded, in order, and told as lag in records and seconds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from streams.engine.inlet import HELD_BACK_S, Inlet

A, B = TopicPartition("a", 0), TopicPartition("b", 0)
BATCH_MAX = 10


@dataclass(frozen=True, slots=True)
class Rec:
    topic: str
    timestamp: int
    offset: int


def records(topic: str, count: int, first: int = 0, at_ms: int = 1_000) -> list[Rec]:
    return [Rec(topic, at_ms + offset, offset) for offset in range(first, first + count)]


@dataclass
class FakeConsumer:
    """The client's consumer, as far as an inlet uses it; `ends` is how far the broker is."""

    paused: set[TopicPartition] = field(default_factory=set)
    at: dict[TopicPartition, int] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)

    def pause(self, tp: TopicPartition) -> None:
        self.paused.add(tp)

    def resume(self, tp: TopicPartition) -> None:
        self.paused.discard(tp)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at[tp] = offset

    def assignment(self) -> set[TopicPartition]:
        return set(self.at)

    @property
    def _subscription(self) -> SimpleNamespace:
        assignment = SimpleNamespace(tps=set(self.at), state_value=self._state)
        return SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))

    def _state(self, tp: TopicPartition) -> SimpleNamespace:
        return SimpleNamespace(lso=self.ends.get(tp), position=self.at[tp], has_valid_position=True)


@pytest.fixture
def consumer() -> FakeConsumer:
    return FakeConsumer({A, B})


@pytest.fixture
def inlet(consumer: FakeConsumer) -> Inlet:
    made = Inlet(("a", "b"), 0, consumer, BATCH_MAX)
    made.open({"a": 0, "b": 0})
    return made


def arrive(inlet: Inlet, consumer: FakeConsumer, topic: str, count: int) -> None:
    tp = TopicPartition(topic, 0)
    inlet.push(topic, records(topic, count, consumer.at[tp]))
    consumer.at[tp] += count


async def test_a_topic_that_runs_ahead_is_paused_and_goes_on_when_a_batch_has_been_taken(
    inlet: Inlet, consumer: FakeConsumer
) -> None:
    arrive(inlet, consumer, "a", 2 * BATCH_MAX - 1)
    assert not consumer.paused
    arrive(inlet, consumer, "a", 1)
    assert consumer.paused == {A}, "two batches wait, and the other topic must not wait for them"
    await inlet.take(BATCH_MAX)
    assert consumer.paused == {A}
    await inlet.take(BATCH_MAX)
    assert not consumer.paused


async def test_what_arrives_while_nobody_owns_the_partition_is_dropped_and_read_again(
    inlet: Inlet, consumer: FakeConsumer
) -> None:
    arrive(inlet, consumer, "a", 5)
    inlet.close()
    assert consumer.paused == {A, B}
    arrive(inlet, consumer, "a", 5)
    inlet.open({"a": 3, "b": 0})
    assert (consumer.at[A], consumer.paused) == (3, set())
    arrive(inlet, consumer, "a", 4)
    assert [record.offset for record in await inlet.take(BATCH_MAX)] == [3, 4, 5, 6]


async def test_lag_is_what_waits_here_and_at_the_broker_and_the_age_of_the_oldest(
    inlet: Inlet, consumer: FakeConsumer
) -> None:
    consumer.ends = {A: 30, B: 0}
    arrive(inlet, consumer, "a", 8)
    assert inlet.lag() == {"a": 30, "b": 0}
    assert inlet.age_s(now_s=6.0) == 5.0
    await inlet.take(3)
    assert inlet.lag() == {"a": 27, "b": 0}
    assert inlet.age_s(now_s=6.003) == 5.0
    await inlet.take(BATCH_MAX)
    assert (inlet.lag(), inlet.age_s(now_s=6.0)) == ({"a": 22, "b": 0}, 0.0)


async def test_an_input_that_lags_holds_the_others_back_but_not_for_ever(
    inlet: Inlet, consumer: FakeConsumer
) -> None:
    consumer.ends = {A: 3, B: 1}
    arrive(inlet, consumer, "a", 3)
    taking = asyncio.create_task(inlet.take(BATCH_MAX))
    await asyncio.sleep(HELD_BACK_S / 10)
    assert not taking.done(), "of b there is more than is at hand"
    assert len(await taking) == 3


async def test_a_wait_ends_with_a_record_a_full_batch_its_time_or_a_stop(inlet: Inlet) -> None:
    async with asyncio.timeout(5):
        await inlet.wait(0.01)
        waiting = asyncio.create_task(inlet.wait(None))
        await asyncio.sleep(0)
        inlet.push("a", records("a", 1))
        await waiting
        waiting = asyncio.create_task(inlet.wait_full(3, 60.0))
        await asyncio.sleep(0)
        inlet.push("a", records("a", 1, 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        inlet.push("a", records("a", 1, 2))
        await waiting
        waiting = asyncio.create_task(inlet.wait_full(9, 60.0))
        await asyncio.sleep(0)
        inlet.wake()
        await waiting


async def test_a_stop_that_comes_while_nobody_waits_ends_the_next_wait(inlet: Inlet) -> None:
    # It comes in the middle of a batch, or of a take-over, and nothing more may arrive.
    inlet.wake()
    async with asyncio.timeout(5):
        await inlet.wait(None)
        await inlet.wait_full(9, 60.0)
