"""A large state: written as a changelog, restored onto an empty disk, worked on, killed, moved.

The changelog is written here as the task would have: its keys, its values, and a position that says
that nothing was read yet. So the worker restores it as after the loss of its disk.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from deploy.local.child import wait_for
from loadtest.bench import streams_kafka as kafka
from loadtest.bench import streams_records as records
from loadtest.bench.report import say
from loadtest.bench.streams_meter import BenchError, cpu_s
from loadtest.bench.streams_plain import RINGS
from loadtest.bench.streams_rates import task_topics
from loadtest.bench.streams_rig import (
    PARTITIONS,
    READY_WITHIN_S,
    SESSION_MS,
    Rig,
    Worker,
    await_ready,
    plain_worker,
    running,
)
from streams.engine import Position, keys
from streams.engine.position import encode_position

TASK: Final = "large"
SEEN_WITHIN_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Restored:
    """How a worker came to its state: changelog records, from the first partition's start to the
    last one's end, and CPU seconds of the whole process until it served.
    """

    records: int
    seconds: float
    serves_after_s: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Changelog records a second."""
        return self.records / self.seconds if self.seconds else 0.0


async def seed(rig: Rig, topic: str) -> None:
    """Write the changelog of a state of `large` accounts."""
    began = time.monotonic()
    await kafka.create(rig.bootstrap, task_topics(TASK), PARTITIONS)
    accounts = rig.sizes.large
    changes = kafka.stamped(_changelog(accounts, topic))
    await kafka.fill(rig.bootstrap, f"{TASK}.changelog", PARTITIONS, changes)
    say(f"  wrote a changelog of {accounts:,} accounts in {time.monotonic() - began:.0f} s")


def _changelog(accounts: int, topic: str) -> Iterator[records.Keyed]:
    minute = records.STARTS_AT_US // records.MINUTE_US - 60
    rest = [0] * 3 * (records.BUCKETS - 1)
    for number in range(accounts):
        name = records.account.__wrapped__(number)
        slot = records.slot_of(name)
        ring = records.RING.pack(minute, number % 7 + 1, number * 17 % 1_000_000, *rest)
        yield slot % PARTITIONS, RINGS.prefixes[slot] + name.encode(), ring
    begin = encode_position(Position({topic: 0}))
    for partition in range(PARTITIONS):
        yield partition, keys.POSITION, begin


def restore(rig: Rig, topic: str, *, wiped: bool) -> Restored:
    """Start a worker and stop it when it serves."""
    if wiped:
        rig.wipe("bench-0")
    worker = plain_worker(rig, TASK, topic)
    log = Tail(worker.child.command.log)
    began = time.monotonic()
    with running(worker.child) as child:
        await_ready(worker)
        serves_after_s = time.monotonic() - began
        used = cpu_s(child.pid)
    return _restored(log.lines("state_restored"), serves_after_s, used)


def crash(rig: Rig, topic: str, *, wiped: bool) -> Restored:
    """Kill a serving worker and start it again, as a supervisor does at once."""
    first = plain_worker(rig, TASK, topic)
    with running(first.child):
        await_ready(first)
        first.child.kill()
    again = plain_worker(rig, TASK, topic)
    log = Tail(again.child.command.log)
    began = time.monotonic()
    if wiped:
        rig.wipe("bench-0")
    with running(again.child) as child:
        await_ready(again)
        serves_after_s = time.monotonic() - began
        used = cpu_s(child.pid)
    return _restored(log.lines("state_restored"), serves_after_s, used)


def move(rig: Rig, topic: str) -> Restored:
    """Kill one of two workers that does not come back: the other takes its partitions over, from
    an empty disk. Times count from the kill.
    """
    rig.wipe("bench-0", "bench-1")
    stays, goes = (plain_worker(rig, TASK, topic, name) for name in ("bench-0", "bench-1"))
    with running(stays.child), running(goes.child):
        _await_shares(stays, goes)
        _forget_others(rig, stays)
        log = Tail(stays.child.command.log)
        used = cpu_s(stays.child.pid)
        began = time.monotonic()
        goes.child.kill()
        if not wait_for(
            lambda: len(log.lines("partition_running")) >= PARTITIONS, READY_WITHIN_S, SEEN_WITHIN_S
        ):
            raise BenchError(f"the partitions did not move: read {stays.child.command.log}")
        serves_after_s = time.monotonic() - began
        used = cpu_s(stays.child.pid) - used
        return _restored(log.lines("state_restored"), serves_after_s, used)


def _await_shares(*workers: Worker) -> None:
    """Return when all serve and have served for a moment: a group forms in two steps."""
    steady_since = time.monotonic()
    deadline = steady_since + READY_WITHIN_S
    while time.monotonic() - steady_since < 3.0:
        if time.monotonic() > deadline:
            raise BenchError("two workers do not come to share the partitions")
        if not all(each.ready() for each in workers):
            steady_since = time.monotonic()
        time.sleep(0.1)


def _forget_others(rig: Rig, worker: Worker) -> None:
    """Lose what a worker keeps of partitions that it had only until the other came."""
    ran = Tail(worker.child.command.log, 0).lines("partition_running")
    own = {int(line["partition"]) for line in ran[-PARTITIONS // 2 :]}
    for number in set(range(PARTITIONS)) - own:
        shutil.rmtree(rig.state("bench-0") / TASK / str(number), ignore_errors=True)


@dataclass(slots=True)
class Tail:
    """What a worker logs from now on."""

    path: Path
    skip: int | None = None

    def __post_init__(self) -> None:
        if self.skip is None:
            self.skip = self.path.stat().st_size if self.path.exists() else 0

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as log:
            log.seek(self.skip or 0)
            found = [
                orjson.loads(line) for line in log if line.startswith(b"{") and line.endswith(b"\n")
            ]
        return [line for line in found if line.get("event") == event]


def _restored(lines: list[dict[str, Any]], serves_after_s: float, used: float) -> Restored:
    count = sum(int(line["records"]) for line in lines)
    seconds = max((float(line["seconds"]) for line in lines), default=0.0)
    return Restored(count, seconds, serves_after_s, used)


def bound_s(restored: Restored) -> float:
    """Return the aim for running again after a kill: the session time-out and the restore."""
    return SESSION_MS / 1000 + restored.seconds


async def drop(rig: Rig) -> None:
    """Delete the large task's topics."""
    await kafka.delete(rig.bootstrap, task_topics(TASK))
    await asyncio.to_thread(rig.wipe, "bench-0", "bench-1")
