"""A rig for tests of the engine: topics of its own, worker processes, a plain model to compare to.

Everything is read back from Kafka `read_committed`; the model is the task run in memory over the
same records, one input after the other.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiokafka
from aiokafka import TopicPartition

from deploy.local import blocking
from deploy.local.admin import ensure_topics
from deploy.local.child import Child, Command, wait_for
from deploy.local.ports import free_port
from schemas.topics import Topic
from streams.engine import Task, keys
from streams.engine.memory import MemoryRecord, MemoryTask
from streams.engine.store import Disk
from streams.engine.topology import needed
from tests.integration.engine_worker import TASKS

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).parent / "engine_worker.py"
PARTITIONS = 2
SETTINGS = {
    "session_timeout_ms": 4_000,
    "transaction_timeout_ms": 4_000,
    "commit_interval_ms": 20,
    "batch_max": 50,
}
START_S = 30.0
DRAIN_S = 60.0

Rows = list[tuple[int, bytes | None, bytes | None]]


@dataclass
class Rig:
    """One task under a name of its own, on a broker that others may use too."""

    bootstrap: str
    folder: Path
    kind: str = "drill"
    name: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")
    settings: dict[str, Any] = field(default_factory=dict)
    workers: dict[str, Child] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.task: Task = TASKS[self.kind](self.name)
        if self.task.name != self.name:
            self.name = self.task.name
        alike, others = needed(self.task)
        topics = [
            Topic(name, "", "test", 86_400_000, compacted=name == self.task.changelog)
            for name in sorted(alike | others)
        ]
        blocking.run(lambda: ensure_topics(self.bootstrap, PARTITIONS, topics))

    # -- workers -----------------------------------------------------------------------------

    def start(self, worker: str = "w0", **settings: Any) -> Child:
        """Start a worker process; it must not run."""
        self.ports[worker] = free_port()
        arguments = {
            "kafka": self.bootstrap,
            "worker": worker,
            "state_dir": str(self.state_dir(worker)),
            "task": self.kind,
            "name": self.name,
            "metrics_port": self.ports[worker],
            "settings": SETTINGS | self.settings | settings,
        }
        environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        command = Command(
            worker,
            (sys.executable, str(WORKER), json.dumps(arguments)),
            self.folder / f"{self.name}-{worker}.log",
            environment | {"PYTHONPATH": str(ROOT)},
            ROOT,
        )
        self.workers[worker] = child = Child(command)
        child.start()
        return child

    def state_dir(self, worker: str = "w0") -> Path:
        """Where a worker keeps its state."""
        return self.folder / self.name / worker

    def stop(self) -> None:
        """End every worker, as a test must."""
        for child in self.workers.values():
            child.send(signal.SIGCONT)
            child.kill()

    def metrics(self, worker: str = "w0") -> dict[str, float]:
        """Return what a worker shows, by full sample name; nothing while it does not answer."""
        try:
            url = f"http://127.0.0.1:{self.ports[worker]}/metrics"
            with urllib.request.urlopen(url, timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def wait_ready(self, worker: str = "w0") -> None:
        """Wait until a worker serves."""
        ready = wait_for(lambda: self.metrics(worker).get("headrace_ready") == 1.0, START_S)
        assert ready, self.workers[worker].log_tail()

    def wait_killed(self, worker: str = "w0") -> None:
        """Wait until a worker has died by SIGKILL."""
        child = self.workers[worker]
        assert wait_for(lambda: not child.running(), DRAIN_S), child.log_tail()
        assert child.exit_code() == -signal.SIGKILL, child.log_tail()

    def log(self, worker: str = "w0") -> list[dict[str, Any]]:
        """Return a worker's log lines, of all its lives."""
        text = (self.folder / f"{self.name}-{worker}.log").read_text(errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    # -- records -----------------------------------------------------------------------------

    def produce(self, topic: str, rows: Rows) -> None:
        """Append (partition, key, value) records."""

        async def send() -> None:
            async with aiokafka.AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
                for partition, key, value in rows:
                    await producer.send(topic, value, key, partition)
                await producer.flush()

        blocking.run(send)

    def read(self, topic: str, isolation: str = "read_committed") -> list[Any]:
        """Return every record of a topic, partition by partition."""

        async def fetch() -> list[Any]:
            async with consuming(self.bootstrap, isolation_level=isolation) as consumer:
                return await _read_all(consumer, topic)

        return blocking.run(fetch)

    def consumed(self) -> bool:
        """True when the group has committed all that is in the inputs."""

        async def behind() -> bool:
            where = [
                TopicPartition(each, n) for each in self.task.topics for n in range(PARTITIONS)
            ]
            async with consuming(
                self.bootstrap,
                group_id=self.name,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
            ) as consumer:
                ends = await consumer.end_offsets(where)
                consumer.assign(where)  # from what the group has committed on
                while any([await consumer.position(tp) < ends[tp] for tp in where]):
                    if await consumer.getmany(timeout_ms=200):
                        return True
            return False

        return not blocking.run(behind)

    # -- the truth ---------------------------------------------------------------------------

    def changelog_state(self) -> dict[bytes, bytes]:
        """Return the state that the changelog holds, without positions."""
        state: dict[bytes, bytes] = {}
        for record in self.read(self.task.changelog):
            if record.value is None:
                state.pop(record.key, None)
            elif record.key != keys.POSITION:
                state[record.key] = record.value
        return state

    def disk_state(self, worker: str = "w0") -> dict[bytes, bytes]:
        """Return the state on a stopped worker's disk, of all partitions."""
        disk = Disk(self.state_dir(worker))
        state: dict[bytes, bytes] = {}
        for number in range(PARTITIONS):
            store = disk.open(self.name, number)
            state |= {key: value for key, value in store.items() if key != keys.POSITION}
            store.close()
        return state

    def model(self) -> tuple[dict[bytes, bytes], Counter[Any], Counter[Any]]:
        """Return the state, outputs and dead letters that must come of the inputs."""
        state: dict[bytes, bytes] = {}
        outputs: Counter[Any] = Counter()
        dead: Counter[Any] = Counter()
        inputs = {each.topic: self.read(each.topic) for each in self.task.inputs}
        for number in range(PARTITIONS):
            run = MemoryTask(self.task, number, PARTITIONS)
            for records in inputs.values():
                mine = [_remembered(record) for record in records if record.partition == number]
                run.feed_fetched(mine)
            run.fire(2**60)
            state |= run.state
            outputs.update((p, k, v) for p, k, v, _ in run.outputs[f"{self.name}.out"])
            for each in self.task.inputs:
                dead.update((p, k, v, tuple(h)) for p, k, v, h in run.outputs[f"{each.topic}.dlq"])
        return state, outputs, dead

    def differences(self) -> list[str]:
        """Compare what is committed with the model; empty when nothing differs."""
        state, outputs, dead = self.model()
        found = Counter((r.partition, r.key, r.value) for r in self.read(f"{self.name}.out"))
        letters: Counter[Any] = Counter()
        for each in self.task.inputs:
            letters.update(
                (r.partition, r.key, r.value, r.headers) for r in self.read(f"{each.topic}.dlq")
            )
        told = [_compare("outputs", outputs, found), _compare("dead letters", dead, letters)]
        kept = self.changelog_state()
        told.append(_compare("state", Counter(state.items()), Counter(kept.items())))
        return [each for each in told if each]


@asynccontextmanager
async def consuming(bootstrap: str, **settings: Any) -> AsyncIterator[Any]:
    """A consumer that is closed even when it could not start."""
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, **settings
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


def _remembered(record: Any) -> MemoryRecord:
    return MemoryRecord(
        record.topic, record.offset, record.timestamp, record.key, record.value, record.headers
    )


def _compare(what: str, expected: Counter[Any], found: Counter[Any]) -> str:
    missing, extra = expected - found, found - expected
    if not missing and not extra:
        return ""
    return (
        f"{what}: {missing.total()} missing, e.g. {list(missing)[:3]};"
        f" {extra.total()} too many, e.g. {list(extra)[:3]}"
    )


async def _read_all(consumer: Any, topic: str) -> list[Any]:
    numbers = consumer.partitions_for_topic(topic) or await consumer._client._wait_on_metadata(
        topic
    )
    tps = [TopicPartition(topic, number) for number in sorted(numbers)]
    ends = await consumer.end_offsets(tps)
    consumer.assign(tps)
    await consumer.seek_to_beginning(*tps)
    records = []
    while any([await consumer.position(tp) < ends[tp] for tp in tps]):
        for fetched in (await consumer.getmany(timeout_ms=200)).values():
            records += fetched
    return sorted(records, key=lambda record: (record.partition, record.offset))
