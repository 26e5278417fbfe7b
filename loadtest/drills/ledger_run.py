"""One seeded run: its topics and database, its writers, its load, and the proof at its end.

Faults are somebody else's (`ledger_faults`); this starts and ends the processes they break, waits
for conditions with a bound, and gathers what is left. A writer that ends by itself is a finding,
whatever comes after it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final

import asyncpg

from deploy.local.child import Child, Command
from deploy.local.home import PROJECT
from deploy.local.kafka import Kafka
from deploy.local.postgres import Postgres
from loadtest.drills import ledger_check, ledger_tables, ledger_watch, ledger_words
from loadtest.drills.ledger_feed import Feeder
from loadtest.drills.ledger_load import COMMANDS, Fed, Load
from loadtest.drills.ledger_proxy import Proxy
from loadtest.drills.ledger_saga import Sagas
from schemas.ids import partition_of
from schemas.wire import encode

SETTLE_WITHIN_S: Final = 90.0
REACHED_WITHIN_S: Final = 45.0
POLL_S: Final = 0.05
IDLE_S: Final = 6.0

Condition = Callable[[], Awaitable[bool]]

_FENCES: Final = "select partition, epoch, next_offset, next_position from ledger.partitions"


class DrillError(RuntimeError):
    """A run did not come to its end; the text says what it waited for."""


@dataclass(frozen=True, slots=True)
class Mix:
    """A run's load and how its writers are set."""

    commands: int = 500
    partitions: int = 3
    batch_max: int = 20
    session_timeout_ms: int = 2_000
    favored: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Run:
    """A run in progress. `faults` counts what was done to it, by kind."""

    seed: int
    folder: Path
    kafka: Kafka
    postgres: Postgres
    dsns: dict[str, str]
    mix: Mix
    rng: Random
    proxy: Proxy
    feeder: Feeder
    faults: Counter[str] = field(default_factory=Counter)
    writers: dict[str, Child] = field(default_factory=dict)
    fed: int = 0
    proof: ledger_check.Proof | None = None
    sagas: Sagas = field(default_factory=Sagas)
    shown: Counter[int] = field(default_factory=Counter)
    _expected_dead: set[str] = field(default_factory=set)
    _source: Iterator[Fed] | None = None

    # -- load --------------------------------------------------------------------------------

    async def feed(self, share: float) -> None:
        """Write the next share (0 to 1) of the commands."""
        if self._source is None:
            load = Load(self.seed, self.mix.partitions, int(time.time() * 1000))
            self._source = load.records(self.mix.commands, self.mix.favored)
        records = list(islice(self._source, round(share * self.mix.commands)))
        for record in records:
            if (asked := ledger_words.meaning(record.value)) is not None:
                self.sagas.note(asked)
        self.fed += await self.feeder.feed(records)

    async def follow(self) -> None:
        """Carry on the transfers that several homes must agree on, as far as events tell."""
        records = []
        for event in await self.feeder.events():
            partition = event["ledger_partition"]
            self.shown[partition] = max(self.shown[partition], event["position"])
            records += [self._asked(record) for record in self.sagas.answers(event)]
        self.fed += await self.feeder.feed(records)

    def _asked(self, record: ledger_words.Record) -> Fed:
        partition = partition_of(record["slot"], self.mix.partitions)
        value = encode(COMMANDS, record)
        return Fed(partition, record["home_account"].encode(), value, int(time.time() * 1000))

    async def feed_all(self) -> None:
        """Write what is left of them."""
        await self.feed(4.0)

    async def trickle(self, share: float, slices: int = 10, pause_s: float = 0.03) -> None:
        """Write a share of the commands little by little."""
        for _ in range(slices):
            await self.feed(share / slices)
            await self.follow()
            await asyncio.sleep(pause_s)

    # -- processes ---------------------------------------------------------------------------

    async def start(self, name: str = "w0", crash: str = "", *, proxied: bool = False) -> Child:
        """Start a writer, to die at a crash point if one is given."""
        dsn = self.dsns["ledger_writer"]
        if proxied:
            dsn = dsn.replace(f":{self.postgres.address.port}/", f":{self.proxy.port}/")
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT),
            "HEADRACE_KAFKA": self.kafka.bootstrap,
            "HEADRACE_PARTITIONS": str(self.mix.partitions),
            "HEADRACE_LEDGER_DSN": dsn,
            "HEADRACE_WORKER": name,
            "HEADRACE_SESSION_TIMEOUT_MS": str(self.mix.session_timeout_ms),
            "HEADRACE_BATCH_MAX": str(self.mix.batch_max),
            **({"HEADRACE_CRASH_POINT": crash} if crash else {}),
        }
        argv = (sys.executable, "-m", "ledger_writer")
        child = Child(Command(name, argv, self.folder / f"{name}.log", env, PROJECT))
        self.writers[name] = child
        self._expected_dead.discard(name)
        if crash:
            self._expected_dead.add(name)
        await asyncio.to_thread(child.start)
        return child

    async def kill(self, name: str = "w0") -> None:
        """End a writer by SIGKILL."""
        self._expected_dead.add(name)
        await asyncio.to_thread(self.writers[name].kill)

    async def stop(self, name: str = "w0") -> None:
        """Ask a writer to end, and wait for it."""
        self._expected_dead.add(name)
        await asyncio.to_thread(self.writers[name].stop)

    def signal(self, sig: signal.Signals, name: str = "w0") -> None:
        """Send a writer a signal."""
        self.writers[name].send(sig)

    def running(self, name: str) -> bool:
        """Tell whether a writer runs."""
        return name in self.writers and self.writers[name].running()

    async def clear(self) -> None:
        """End every process of the run, stopped ones too."""
        for child in self.writers.values():
            await asyncio.to_thread(child.kill)

    # -- conditions --------------------------------------------------------------------------

    async def until(self, condition: Condition, within_s: float, what: str) -> None:
        """Wait for a condition; a writer that ends by itself meanwhile ends the run."""
        deadline = time.monotonic() + within_s
        while not await condition():
            for name, child in self.writers.items():
                if name not in self._expected_dead and not child.running():
                    said = child.log_tail(4)
                    raise DrillError(f"{name} ended with {child.exit_code()}: {said}")
            if time.monotonic() > deadline:
                tails = {name: child.log_tail(3) for name, child in self.writers.items()}
                raise DrillError(f"not within {within_s:.0f} s: {what}; {tails}")
            await asyncio.sleep(POLL_S / 2)

    async def fences(self) -> dict[int, Any]:
        """Return the fences by partition; none while Postgres is away."""
        try:
            connection = await asyncpg.connect(self.dsns["ledger_reader"], timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return {}
        try:
            return {line["partition"]: line for line in await connection.fetch(_FENCES)}
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return {}
        finally:
            connection.terminate()

    async def take_over(self, name: str, crash: str = "") -> None:
        """Start a writer, and wait until it holds every fence, or has died as it was told to."""
        before = await self.fences()
        await self.start(name, crash)

        async def raised() -> bool:
            fences = await self.fences()
            if crash and not self.running(name):
                return True
            return len(fences) == self.mix.partitions and all(
                fence["epoch"] > (before[number]["epoch"] if number in before else 0)
                for number, fence in fences.items()
            )

        await self.until(raised, REACHED_WITHIN_S, f"{name} takes over")

    async def rows(self) -> int:
        """Return how many commands are decided."""
        return sum(fence["next_position"] - 1 for fence in (await self.fences()).values())

    async def until_rows(self, more: int) -> None:
        """Wait until so many more commands are decided, as far as there are any."""
        target = min(await self.rows() + more, round(0.9 * self.fed))

        async def reached() -> bool:
            return await self.rows() >= target

        await self.until(reached, REACHED_WITHIN_S, f"{target} rows")

    async def until_ended(self, name: str) -> bool:
        """Wait until a writer that is to die has died by the signal it gives itself.

        False when it has nothing left to do in which it could: not every log passes every point.
        """
        child = self.writers[name]
        rows, changed_at = -1, time.monotonic()

        async def ended() -> bool:
            nonlocal rows, changed_at
            now = await self.rows()
            if now != rows:
                rows, changed_at = now, time.monotonic()
            return not child.running() or time.monotonic() > changed_at + IDLE_S

        await self.until(ended, REACHED_WITHIN_S, f"{name} dies")
        if child.running():
            return False
        if child.exit_code() != -signal.SIGKILL:
            raise DrillError(f"{name} ended with {child.exit_code()}: {child.log_tail(5)}")
        return True

    async def settle(self) -> None:
        """Have writers finish everything, and stop them."""
        await self.feed_all()
        if not any(self.running(name) for name in self.writers):
            await self.start()
        ends = await self.feeder.ends()

        async def finished() -> bool:
            nonlocal ends
            fed = self.fed
            await self.follow()
            if self.fed != fed:
                ends = await self.feeder.ends()
            fences = await self.fences()
            if not all(n in fences and fences[n]["next_offset"] >= ends[n] for n in ends):
                return False
            told = all(self.shown[n] == fences[n]["next_position"] - 1 for n in ends)
            return told and not self.sagas.open

        try:
            await self.until(finished, SETTLE_WITHIN_S, f"all up to {ends} is decided")
        except DrillError as error:
            left = f"published {self.shown}, open {list(self.sagas.open)}"
            raise DrillError(f"{error}; {await self.fences()}; {left}") from error
        for name in self.writers:
            await self.stop(name)

    # -- the proof ---------------------------------------------------------------------------

    async def compare(self) -> list[str]:
        """Replay what is left against the model, compare the tables, audit the chain."""
        reader = await asyncpg.connect(self.dsns["ledger_reader"])
        try:
            evidence = await ledger_watch.gather(self.kafka.bootstrap, reader, self.mix.partitions)
        finally:
            await reader.close()
        proof = self.proof = ledger_check.replay(evidence)
        if not proof.differences:
            proof.differences += ledger_tables.differences(evidence, proof)
        audited = await ledger_watch.audit(self.dsns["ledger_reader"], self.mix.partitions)
        return proof.differences + audited
