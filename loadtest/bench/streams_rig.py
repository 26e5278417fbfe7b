"""What every leg of the stream bench stands on: sizes, the broker, workers as real processes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from deploy.local.child import Child, Command, wait_for
from deploy.local.home import PROJECT
from deploy.local.ports import free_port
from loadtest.bench import streams_plain
from loadtest.bench.streams_meter import BenchError, Watched, scrape
from schemas.environment import VARIABLES
from schemas.topics import TOPICS

ACCOUNTS: Final = 20_000
PARTITIONS: Final = 4
RULES: Final = Path(__file__).with_name("streams_rules.yaml")
PAYMENT_INPUTS: Final = ("payments.requests", "ledger.events")
SESSION_MS: Final = 10_000
READY_WITHIN_S: Final = 180.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured; `large` is the number of accounts of the large state."""

    events: int
    seconds: int
    batch_max: int
    commit_ms: int
    rounds: int
    large: int
    against: bool

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Sizes:
        """Read N, SECONDS, BATCH, COMMIT_MS, ROUNDS and AGAINST; the large state shrinks with N."""
        events = int(env.get("N") or 500_000)
        usual = VARIABLES["HEADRACE_COMMIT_INTERVAL_MS"].default
        return cls(
            events=events,
            seconds=int(env.get("SECONDS") or 10),
            batch_max=int(env.get("BATCH") or 2_000),
            commit_ms=int(env.get("COMMIT_MS") or usual or 0),
            rounds=int(env.get("ROUNDS") or 3),
            large=min(5_000_000, 10 * events),
            against=env.get("AGAINST", "0") not in {"", "0"},
        )


@dataclass(frozen=True, slots=True)
class Rig:
    """One run's broker and folder."""

    folder: Path
    bootstrap: str
    broker_pid: int
    sizes: Sizes
    codec: Path | None

    def state(self, worker: str) -> Path:
        """Where a worker keeps its state."""
        return self.folder / "state" / worker

    def wipe(self, *workers: str) -> None:
        """Lose the disks of workers."""
        for worker in workers:
            shutil.rmtree(self.state(worker), ignore_errors=True)

    def watched(self, child: Child, group: str, *topics: str) -> Watched:
        """Say what is watched."""
        return Watched(child, self.broker_pid, group, topics)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process and the port of its metrics."""

    child: Child
    port: int

    def ready(self) -> bool:
        """True once it runs all that its group gave it."""
        return self.child.running() and _ready(self.port)


def plain_worker(rig: Rig, task: str, topic: str, name: str = "bench-0") -> Worker:
    """Return a process of the plain task; not started."""
    port = free_port()
    told = streams_plain.Worker(
        task=task,
        topic=topic,
        kafka=rig.bootstrap,
        worker=name,
        state_dir=str(rig.state(name)),
        metrics_port=port,
        batch_max=rig.sizes.batch_max,
        commit_interval_ms=rig.sizes.commit_ms,
        session_timeout_ms=SESSION_MS,
        codec=str(rig.codec) if rig.codec else None,
    )
    argument = msgspec.json.encode(told).decode()
    argv = (sys.executable, "-m", streams_plain.__name__, argument)
    return Worker(Child(command(rig, name, argv, {})), port)


def payments_worker(rig: Rig, name: str = "bench-0") -> Worker:
    """Return the real worker process, with the bench's rules; not started."""
    port = free_port()
    variables = {
        "HEADRACE_KAFKA": rig.bootstrap,
        "HEADRACE_WORKER": name,
        "HEADRACE_STATE_DIR": str(rig.state(name)),
        "HEADRACE_METRICS_PORT": str(port),
        "HEADRACE_BATCH_MAX": str(rig.sizes.batch_max),
        "HEADRACE_COMMIT_INTERVAL_MS": str(rig.sizes.commit_ms),
        "HEADRACE_RULES_FILE": str(RULES),
    }
    return Worker(Child(command(rig, name, (sys.executable, "-m", "streams"), variables)), port)


def command(rig: Rig, name: str, argv: tuple[str, ...], variables: Mapping[str, str]) -> Command:
    """Return a command that runs in the project, with nothing of our environment but the path."""
    return Command(
        name=name,
        argv=argv,
        log=rig.folder / "logs" / f"{name}.log",
        env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(PROJECT), **variables},
        cwd=PROJECT,
        stop_within_s=20.0,
    )


@contextmanager
def running(child: Child) -> Iterator[Child]:
    """Run a process for as long as the block lasts."""
    child.start()
    try:
        yield child
    finally:
        child.stop()


def await_ready(worker: Worker, within_s: float = READY_WITHIN_S) -> None:
    """Return when the worker serves."""
    if not wait_for(worker.ready, within_s, every_s=0.02):
        command = worker.child.command
        raise BenchError(
            f"{command.name} does not serve after {within_s:.0f} s: read {command.log}"
        )


def payment_topics() -> list[str]:
    """Every topic of the table: the real worker runs all tasks."""
    return list(TOPICS)


def _ready(port: int) -> bool:
    try:
        return scrape(port).get("headrace_ready") == 1.0
    except OSError:
        return False
