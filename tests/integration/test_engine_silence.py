"""A broker that falls silent at any step: every wait has its end, and the worker goes on by itself.

Silence is SIGSTOP: connections stay open and nothing is answered. The task's own deadlines are made
shorter than its session here, so that the group still knows the worker when the broker wakes up.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from deploy.local.child import wait_for
from deploy.local.kafka import Kafka
from schemas.errors import Unavailable
from streams.engine import EngineSettings
from streams.engine.crash import CrashPoint
from streams.engine.delivery import Delivery
from streams.engine.partition import Shared
from tests.integration.engine_drill import drained, rows
from tests.integration.engine_rig import PARTITIONS, START_S, Rig

WITHIN_S = 10.0
"""Bound of every wait here: the engine allows each exchange a second, the client on its own 11."""

STOPS_WITHIN_S = 5.0

STEPS = ("after_fence", "after_restore", "after_begin", "in_send", "after_send", "after_offsets")


@dataclass(frozen=True, slots=True)
class Hasty(EngineSettings):
    """Gives the broker a second."""

    @property
    def broker_within_s(self) -> float:
        return 1.0

    @property
    def transaction_within_s(self) -> float:
        return 1.0


@dataclass(slots=True)
class Silence(CrashPoint):
    """Freezes the broker, once, where a crash point would end the process."""

    freeze: Callable[[], None] = field(default=lambda: None)
    step: str = ""

    def at(self, name: str) -> None:
        if name == self.step:
            self.step = ""
            self.freeze()


@pytest.fixture
def rig(kafka: Kafka, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(kafka.bootstrap, tmp_path)
    yield made
    kafka.resume()
    made.stop()


def delivery(rig: Rig, silence: CrashPoint) -> Delivery:
    settings = Hasty(
        kafka=rig.bootstrap,
        worker="w0",
        state_dir=rig.state_dir(),
        session_timeout_ms=20_000,
        commit_interval_ms=20,
    )
    return Delivery(rig.task, Shared.of(settings, silence))


async def test_a_broker_silent_at_any_step_is_an_interruption_and_nothing_is_lost(
    rig: Rig, kafka: Kafka
) -> None:
    silence = Silence(freeze=kafka.pause, step=STEPS[0])
    worker = delivery(rig, silence)
    await worker.start()
    for step, following in pairwise((*STEPS, "")):
        before = interrupted(rig)
        feeding = asyncio.create_task(asyncio.to_thread(rig.produce, f"{rig.name}.a", rows(1, 40)))
        await until(lambda: not silence.step, f"{step} is passed")
        await until(lambda seen=before: interrupted(rig) > seen, f"{step} is given up")
        silence.step = following
        kafka.resume()
        await feeding
    await asyncio.to_thread(drained, rig)
    await worker.stop()
    assert rig.differences() == []


async def test_a_worker_that_finds_a_silent_broker_says_so_within_its_deadline(
    rig: Rig, kafka: Kafka
) -> None:
    worker = delivery(rig, CrashPoint())
    kafka.pause()
    with pytest.raises(Unavailable):
        async with asyncio.timeout(WITHIN_S):
            await worker.start()
    async with asyncio.timeout(WITHIN_S):
        await worker.stop()


def test_a_worker_stops_within_its_time_though_the_broker_does_not_answer(
    rig: Rig, kafka: Kafka
) -> None:
    rig.produce(f"{rig.name}.a", rows(2, 3_000))
    child = rig.start(batch_max=10, session_timeout_ms=10_000, transaction_timeout_ms=10_000)
    written = partial(rig.read, f"{rig.name}.out")
    assert wait_for(lambda: len(written()) > 100, START_S), child.log_tail()
    kafka.pause()
    child.send(signal.SIGTERM)
    assert wait_for(lambda: not child.running(), STOPS_WITHIN_S), child.log_tail()
    assert child.exit_code() == 0
    kafka.resume()
    rig.start()
    drained(rig)
    assert rig.differences() == []


async def until(condition: Callable[[], bool], what: str) -> None:
    assert await asyncio.to_thread(wait_for, condition, WITHIN_S), f"not in time: {what}"


def interrupted(rig: Rig) -> float:
    """How often a partition was given up because the broker did not answer."""
    labels = {"task": rig.name, "reason": "unavailable"}
    return sum(
        REGISTRY.get_sample_value(
            "headrace_streams_aborts_total", labels | {"partition": str(number)}
        )
        or 0.0
        for number in range(PARTITIONS)
    )
