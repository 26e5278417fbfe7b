"""The outbox over a broker in memory: answered once, in time, within bounds."""

from __future__ import annotations

import asyncio

import pytest

from gateways.kafka.memory import MemoryLink
from gateways.kafka.outbox import Bounds, Event, Outbox
from gateways.problems import Down
from tests.unit.gateway_rig import until


class Clock:
    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


class Bench:
    """An outbox, and what was said of each event."""

    def __init__(self, **bounds):
        self.link, self.clock, self.said = MemoryLink(), Clock(), []
        self.outbox = Outbox(self.link, Bounds(**bounds), self.clock)

    def offer(self, name="e", partition=0, topic="t", size=10):
        event = Event(topic, partition, b"k", name.encode().ljust(size), (), 1, lambda error: (
            self.said.append((name, error.code if error else "ok"))))  # fmt: skip
        self.outbox.offer(event)
        return event

    async def settle(self):
        await until(lambda: not self.outbox._tasks and not self.outbox._ready)


async def test_an_event_is_answered_once_it_is_acknowledged():
    bench = Bench()
    bench.link.fall_silent()
    bench.offer("a")
    await asyncio.sleep(0.02)
    assert bench.said == []
    bench.link.speak()
    await bench.settle()
    assert bench.said == [("a", "ok")]
    assert bench.outbox.records == 0


async def test_events_of_one_turn_are_one_batch_and_keep_their_order():
    bench = Bench()
    for n in range(50):
        bench.offer(f"{n}")
    await bench.settle()
    assert bench.link.batches == [50]
    assert [e.value.strip() for e in bench.link.log["t", 0]] == [b"%d" % n for n in range(50)]


async def test_a_batch_gathers_while_the_one_before_it_is_on_its_way():
    bench = Bench()
    bench.link.fall_silent()
    bench.offer("first")
    await asyncio.sleep(0.01)
    for n in range(20):
        bench.offer(f"{n}")
        await asyncio.sleep(0)
    bench.link.speak()
    await bench.settle()
    assert bench.link.batches == [1, 20]


async def test_partitions_do_not_wait_for_one_another():
    bench = Bench()
    bench.offer("a", partition=0)
    bench.offer("b", partition=1)
    bench.offer("c", topic="u")
    await bench.settle()
    assert sorted(bench.link.log) == [("t", 0), ("t", 1), ("u", 0)]


async def test_a_batch_is_bounded_by_records_and_bytes():
    bench = Bench(batch_records_max=10, batch_bytes_max=1_000)
    for n in range(25):
        bench.offer(f"{n}")
    for n in range(4):
        bench.offer(f"big {n}", size=600)
    await bench.settle()
    assert sum(bench.link.batches) == 29
    assert max(bench.link.batches) <= 10
    assert bench.link.batches[-3:] == [1, 1, 1]


async def test_an_event_larger_than_a_batch_goes_alone():
    bench = Bench(batch_bytes_max=100)
    bench.offer("big", size=5_000)
    await bench.settle()
    assert bench.said == [("big", "ok")]


async def test_past_the_bound_of_records_an_event_is_refused_at_once():
    bench = Bench(records_max=2)
    bench.link.fall_silent()
    bench.offer("a")
    bench.offer("b")
    with pytest.raises(Down) as caught:
        bench.offer("c")
    assert caught.value.code == "overloaded"
    bench.link.speak()
    await bench.settle()
    assert [name for name, _ in bench.said] == ["a", "b"]
    bench.offer("d")
    await bench.settle()
    assert bench.said[-1] == ("d", "ok")


async def test_past_the_bound_of_bytes_an_event_is_refused_at_once():
    bench = Bench(bytes_max=1_000)
    bench.link.fall_silent()
    bench.offer("a", size=1_000)
    with pytest.raises(Down):
        bench.offer("b")


async def test_while_the_broker_is_known_to_be_away_an_event_is_refused_at_once():
    bench = Bench()
    bench.link.away = True
    with pytest.raises(Down) as caught:
        bench.offer("a")
    assert caught.value.code == "broker_unavailable"
    assert bench.outbox.records == 0


async def test_what_is_over_its_time_is_answered_and_not_sent():
    bench = Bench(deadline_s=1.5)
    bench.link.fall_silent()
    bench.offer("on its way")
    await asyncio.sleep(0.01)
    bench.offer("queued")
    bench.outbox.expire(bench.clock.time + 1.4)
    assert bench.said == []
    bench.outbox.expire(bench.clock.time + 1.6)
    assert bench.said == [("queued", "broker_unavailable"), ("on its way", "broker_unavailable")]
    bench.link.speak()
    await bench.settle()
    assert [e.value.strip() for e in bench.link.log["t", 0]] == [b"on its way"]
    assert len(bench.said) == 2
    assert bench.outbox.records == 0


async def test_a_younger_event_of_the_same_batch_is_still_acknowledged():
    bench = Bench(deadline_s=1.5)
    bench.link.fall_silent()
    bench.offer("old")
    bench.clock.time += 1.0
    bench.offer("young")
    await asyncio.sleep(0.01)
    bench.outbox.expire(bench.clock.time + 0.6)
    assert bench.said == [("old", "broker_unavailable")]
    bench.link.speak()
    await bench.settle()
    assert bench.said[1:] == [("young", "ok")]


async def test_a_batch_of_unknown_outcome_says_so_and_the_next_one_goes():
    bench = Bench()
    bench.link.failing = True
    bench.offer("a")
    await bench.settle()
    assert bench.said == [("a", "broker_unavailable")]
    bench.link.failing = False
    bench.offer("b")
    await bench.settle()
    assert bench.said[-1] == ("b", "ok")
    assert bench.outbox.records == 0


async def test_a_drain_waits_for_acknowledgements_then_gives_up():
    bench = Bench()
    bench.link.fall_silent()
    bench.offer("a")
    await asyncio.sleep(0.01)
    bench.outbox._now = asyncio.get_running_loop().time
    await bench.outbox.drain(0.05)
    await bench.settle()
    assert bench.said == [("a", "broker_unavailable")]
