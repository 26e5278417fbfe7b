"""Keeps the processes of one stack running: starts them in stages, restarts what dies, stops all.

Invariants: every child is in the record before anything else may happen, so `down` finds it even
after this process was killed; a process that ends is started again, after a bounded wait, until
the stack stops; while the stack is up `stack.json` names the pids that run now.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.local.backoff import next_delay_s
from deploy.local.child import Identity, identify
from deploy.local.stackfile import Record, write_record, write_stack
from deploy.local.units import Stage, Unit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy.local.home import Home

READY_WITHIN_S = 90.0
_POLL_S = 0.1
_LOG_BYTES_MAX = 32 * 1024 * 1024
_LOG_CHECK_S = 5.0
_EARLY_DEATHS_MAX = 4


class StartError(RuntimeError):
    """The stack did not come up; the text says which part, and what to do."""


class Supervisor:
    """One stack's processes. `start` stages as they become possible, then `keep`, then `stop`."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.units: list[Unit] = []
        self.stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self._stack: dict[str, Any] | None = None
        own = identify(os.getpid())
        assert own is not None
        self._record = Record(own)
        self.note("starting")

    def note(self, state: str, error: str = "") -> None:
        """Write the record: what state the stack is in and which processes belong to it."""
        self._record.state, self._record.error = state, error
        write_record(self.home, self._record)

    async def start(self, units: Iterable[Unit]) -> None:
        """Start these, keep them running, and return when all are ready."""
        new = list(units)
        self.units += new
        for unit in new:
            self._launch(unit)
            self._keepers.append(asyncio.create_task(self._keep(unit), name=unit.name))
        await asyncio.gather(*(self._until_ready(unit) for unit in new))

    def publish(self, stack: dict[str, Any]) -> None:
        """The stack is up: write `stack.json`, and from now on keep it true."""
        self._stack = stack
        self._write_stack()
        self.note("ready")

    async def keep(self) -> None:
        """Bound the logs until told to stop; raises what a keeper raised."""
        bounding = asyncio.create_task(self._bound_logs())
        stopped = asyncio.create_task(self.stopping.wait())
        done, _ = await asyncio.wait(
            [*self._keepers, bounding, stopped], return_when=asyncio.FIRST_COMPLETED
        )
        bounding.cancel()
        stopped.cancel()
        for task in done - {stopped}:
            task.result()

    async def stop(self) -> None:
        """Stop every process, stage by stage in reverse order; the members of one side by side."""
        self.stopping.set()
        self.note("stopping", self._record.error)
        self.home.stack_file.unlink(missing_ok=True)
        await asyncio.gather(*self._keepers, return_exceptions=True)
        last_first = sorted(self.units, key=lambda unit: unit.stage, reverse=True)
        for _, stage in groupby(last_first, key=lambda unit: unit.stage):
            await asyncio.gather(*(asyncio.to_thread(unit.child.stop) for unit in stage))

    def _launch(self, unit: Unit) -> None:
        unit.child.start()
        identity = unit.child.identity
        if identity is not None:  # None: it has ended already, and its keeper will see that
            self._record.children[unit.name] = Identity(identity.pid, identity.started_ticks)
        self.note(self._record.state)
        self._write_stack()

    def _write_stack(self) -> None:
        if self._stack is None or self.stopping.is_set():
            return
        servers = [unit.entry() for unit in self.units if unit.stage is Stage.SERVER]
        services = [unit.entry() for unit in self.units if unit.stage is not Stage.SERVER]
        write_stack(self.home, self._stack, services, servers)

    async def _keep(self, unit: Unit) -> None:
        delay_s = 0.0
        while not self.stopping.is_set():
            if unit.child.running() or self.home.hold(unit.name).exists():
                await asyncio.sleep(_POLL_S)
                continue
            ran_s = time.time() - unit.child.started_at
            delay_s = next_delay_s(delay_s, ran_s)
            code = unit.child.exit_code()
            print(f"{unit.name} ended ({code}) after {ran_s:.1f} s, back in {delay_s:.1f} s")
            if await self._stops_within(delay_s) or self.home.hold(unit.name).exists():
                continue
            unit.restarts += 1
            self._launch(unit)

    async def _stops_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _until_ready(self, unit: Unit) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not await asyncio.to_thread(unit.is_ready):
            if self.stopping.is_set():
                raise StartError("stopped before it was up")
            if unit.restarts >= _EARLY_DEATHS_MAX or time.monotonic() > deadline:
                how = f"ended {unit.restarts} times" if unit.restarts else "was never ready"
                raise StartError(
                    f"{unit.name} {how}. Its log ({unit.child.command.log}) ends:\n"
                    f"{unit.child.log_tail()}"
                )
            await asyncio.sleep(_POLL_S)
        print(f"{unit.name} is ready (pid {unit.child.pid})")

    async def _bound_logs(self) -> None:
        while True:
            for unit in self.units:
                bound_log(unit.child.command.log, _LOG_BYTES_MAX)
            await asyncio.sleep(_LOG_CHECK_S)


def bound_log(log: Path, bytes_max: int) -> None:
    """Move a log that grew too large aside as `.1`, replacing the last one. Its writer appends to
    the same file, so it goes on at its start; lines written during the copy can be lost."""
    if log.exists() and log.stat().st_size > bytes_max:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
