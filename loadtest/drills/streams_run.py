"""One seeded run: its topics, its load, its workers, and the comparison at its end.

Faults are somebody else's (`streams_faults`); this starts and ends the processes they break, waits
for conditions with a bound, and reads what is left. A worker that ends by itself is started again,
as a supervisor would.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from deploy.local.child import Child, Command, stands_still
from deploy.local.home import PROJECT
from deploy.local.kafka import Kafka
from loadtest.drills import streams_model as model
from loadtest.drills import streams_task
from loadtest.drills.streams_broker import INPUTS, WRITTEN, Broker
from loadtest.drills.streams_load import Fed, Mix, feed
from loadtest.drills.streams_state import last_values, local_differences, split_state

RESTARTS_MAX: Final = 20
POLL_S: Final = 0.1
SLICES: Final = 40
LAST_S: Final = 1.5
"""How long the last records take to come, while timers fire between them."""


Condition = Callable[[], Awaitable[bool]]


class DrillError(RuntimeError):
    """A run did not come to its end; the text says what it waited for."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a run's workers are set."""

    batch_max: int
    commit_interval_ms: int
    session_timeout_ms: int = 6_000
    transaction_timeout_ms: int = 6_000


@dataclass(frozen=True, slots=True)
class Workers:
    """How workers are run: what Python is given, and how long a wait for them goes on while they
    commit nothing.
    """

    program: tuple[str, ...] = ("-m", streams_task.__name__)
    patience_s: float = 90.0


@dataclass(slots=True)
class Run:
    """A run in progress. `faults` counts what was done to it, by kind."""

    seed: int
    prefix: str
    folder: Path
    broker: Broker
    server: Kafka
    mix: Mix
    tuning: Tuning
    rng: Random
    faults: Counter[str] = field(default_factory=Counter)
    workers: dict[str, Child] = field(default_factory=dict)
    started: Workers = field(default_factory=Workers)
    stop_on_poison: bool = False
    clock_off_s: float = 0.0
    fed: int = 0
    _source: Iterator[Fed] | None = None

    # -- load --------------------------------------------------------------------------------

    async def feed(self, share: float) -> None:
        """Write the next share (0 to 1) of the records."""
        if self._source is None:
            self._source = feed(self.seed, self.mix)
        count = round(share * self.mix.records)
        self.fed += await self.broker.feed(self.prefix, islice(self._source, count))

    async def feed_all(self) -> None:
        """Write what is left of them."""
        await self.feed(1.0)

    async def trickle(self, share: float, seconds: float) -> None:
        """Write a share of the records, as far as there are any, little by little."""
        share = min(share, 1.0 - self.fed / self.mix.records)
        slices = max(1, min(SLICES, round(share * self.mix.records)))
        for _ in range(slices):
            await self.feed(share / slices)
            await asyncio.sleep(seconds / slices)

    # -- processes ---------------------------------------------------------------------------

    def state(self, name: str) -> Path:
        """Where a worker keeps its state."""
        return self.folder / "state" / name

    async def start(self, name: str = "w0", crash: str = "") -> Child:
        """Start a worker, to die at a crash point if one is given."""
        told = streams_task.Worker(
            prefix=self.prefix,
            kafka=self.broker.bootstrap,
            worker=name,
            state_dir=str(self.state(name)),
            crash_point=crash,
            stop_on_poison=self.stop_on_poison,
            clock_off_s=self.clock_off_s,
            batch_max=self.tuning.batch_max,
            commit_interval_ms=self.tuning.commit_interval_ms,
            session_timeout_ms=self.tuning.session_timeout_ms,
            transaction_timeout_ms=self.tuning.transaction_timeout_ms,
        )
        argument = msgspec.json.encode(told).decode()
        command = Command(
            name=name,
            argv=(sys.executable, *self.started.program, argument),
            log=self.folder / "logs" / f"{name}.log",
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT)},
            cwd=PROJECT,
            stop_within_s=20.0,
        )
        child = Child(command)
        await asyncio.to_thread(child.start)
        self.workers[name] = child
        return child

    async def kill(self, name: str = "w0") -> None:
        """End a worker by SIGKILL."""
        await asyncio.to_thread(self.workers[name].kill)

    async def stop(self, name: str = "w0") -> None:
        """Ask a worker to end, and wait for it."""
        await asyncio.to_thread(self.workers[name].stop)

    async def died(self, name: str) -> bool:
        """Wait until a worker has ended; False when it does not."""

        async def ended() -> bool:
            return not self.workers[name].running()

        return await self._comes(ended)

    async def stands(self, name: str) -> bool:
        """Wait until a worker has paused itself; False when it does not, or has ended."""
        worker = self.workers[name]

        async def paused() -> bool:
            return not worker.running() or stands_still(worker.pid)

        return await self._comes(paused) and worker.running()

    def wipe(self, name: str = "w0") -> None:
        """Lose a worker's disk."""
        shutil.rmtree(self.state(name), ignore_errors=True)

    async def clear(self) -> None:
        """End every process of the run, stopped ones too."""
        for child in self.workers.values():
            await asyncio.to_thread(child.kill)

    # -- conditions --------------------------------------------------------------------------

    async def done(self) -> int:
        """Return how many input records are committed."""
        offsets = await self.broker.committed(self.prefix)
        topics = {f"{self.prefix}.{name}" for name in INPUTS}
        return sum(offset for tp, offset in offsets.items() if tp.topic in topics)

    async def until_done(self, records: int, kept: str = "") -> None:
        """Wait until so many input records are committed; `kept` names a worker that is started
        again whenever it ends.
        """

        async def reached() -> bool:
            return await self.done() >= records

        what = f"{records} records committed"
        await (self._kept(kept, reached, what) if kept else self._await(reached, what))

    async def catch_up(self, name: str = "w0") -> None:
        """Wait until a worker has applied all that was fed."""
        await self.until_done(self.fed, kept=name)

    async def settle(self, name: str = "w0") -> None:
        """Have one worker finish everything, then stop it; all others have ended.

        The last records come little by little to a worker that has caught up, so that timers fire
        and are replaced between them.
        """
        if name not in self.workers or not self.workers[name].running():
            await self.start(name)
        await self.catch_up(name)
        await self.trickle(1.0, LAST_S)
        await self.feed_all()
        expected = await self.expected()
        must_fire = sum(len(each.must_fire) for each in expected.values())

        async def finished() -> bool:
            return await self._all_applied(expected, must_fire)

        await self._kept(name, finished, "everything applied and every timer fired")
        await self.stop(name)

    async def _kept(self, name: str, condition: Condition, what: str) -> None:
        """Wait for a condition while a worker is started again whenever it ends."""
        restarts = 0

        async def holds() -> bool:
            nonlocal restarts
            if not self.workers[name].running():
                restarts += 1
                assert restarts <= RESTARTS_MAX, f"{name} ends again and again"
                await self.start(name)
            return await condition()

        await self._await(holds, what)

    async def _all_applied(self, expected: dict[int, model.Partition], must_fire: int) -> bool:
        if await self.done() < self.mix.records:
            return False
        if not must_fire:
            return True
        fired = await self.broker.read(self.prefix, ["fired"], self.mix.partitions)
        return all(
            set(expected[number].must_fire.items())
            <= {(record.key, record.value) for record in records}
            for (_, number), records in fired.items()
        )

    async def _await(self, condition: Condition, what: str) -> None:
        if not await self._comes(condition):
            raise DrillError(f"nothing happens any more, and not yet: {what}")

    async def _comes(self, condition: Condition) -> bool:
        """Wait for a condition for as long as there is progress; False when there is none."""
        done, deadline = -1, 0.0
        while not await condition():
            now, before = time.monotonic(), done
            done = await self.done()
            if done != before:
                deadline = now + self.started.patience_s
            if now > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True

    # -- what is left ------------------------------------------------------------------------

    async def expected(self) -> dict[int, model.Partition]:
        """Return what must be, from the input log as it stands."""
        logs = await self.broker.read(self.prefix, INPUTS, self.mix.partitions)
        return {
            number: model.expect(logs["in", number], logs["side", number])
            for number in range(self.mix.partitions)
        }

    async def compare(self, name: str = "w0") -> tuple[int, list[str]]:
        """Return how much was checked and what differs; `name` is who finished and holds all."""
        expected = await self.expected()
        names = (*WRITTEN, "changelog")
        written = await self.broker.read(self.prefix, names, self.mix.partitions)
        found: list[str] = []
        for number, wanted in expected.items():
            changelog = last_values(written["changelog", number])
            state, timers_left = split_state(changelog)
            wrote = model.Wrote(
                topics={each: written[each, number] for each in WRITTEN},
                state=state,
                timers_left=timers_left,
                store_differs=local_differences(
                    self.state(name) / self.prefix / str(number), changelog
                ),
            )
            found += [f"[{number}] {each}" for each in model.differences(wanted, wrote)]
            self.faults["poisoned record"] += len(wanted.dead)
        return sum(model.checked(each) for each in expected.values()), found

    async def outputs(self) -> dict[tuple[str, int], list[tuple[Any, ...]]]:
        """Return the bytes of the outputs."""
        written = await self.broker.read(self.prefix, ("out", "side.out"), self.mix.partitions)
        return {
            where: [(record.key, record.value, tuple(record.headers.items())) for record in records]
            for where, records in written.items()
        }
