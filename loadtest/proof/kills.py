"""End one process of each role with SIGKILL, one role after another, and time each recovery.

Kills only pids that `stack.json` names, and only when asked to. A role is back when its new process
says that it is ready *and* something has moved that only it can move: a request answered, a payment
ended, the read model or the lake gone on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import urllib.request
from typing import TYPE_CHECKING, Final

from loadtest import stack
from loadtest.proof.windows import Kill
from loadtest.verify.databases import viewed_offsets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from loadtest.generator.open_loop import OpenLoop
    from loadtest.proof.cpu import CpuMeter
    from loadtest.proof.observer import Observer
    from loadtest.stack import Process, Stack

ROLES: Final = ("gateway", "streams", "ledger_writer", "views", "lake")
BACK_WITHIN_S: Final = 60.0
REST_S: Final = 3.0
"""Least time between one recovery and the next kill."""

_POLL_S: Final = 0.05
_READY_LINE: Final = b"\nheadrace_ready 1"


class Killer:
    """Kills at the given seconds after the start of the load, unless the last role still heals."""

    def __init__(
        self, folder: Path, loop: OpenLoop, observer: Observer, cpu: CpuMeter,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._folder = folder
        self._loop = loop
        self._observer = observer
        self._cpu = cpu
        self._say = say
        self.kills: list[Kill] = []

    async def run(self, times_s: list[float]) -> None:
        """Kill one process of each role, in order, from `times_s` on."""
        for role, planned_s in zip(ROLES, times_s, strict=True):
            await asyncio.sleep(max(0.0, planned_s - self._now()))
            running = stack.read(self._folder)
            victim = running.of_role(role)[0]
            self._cpu.look([victim])
            moved = await self._movement(running, role)
            os.kill(victim.pid, signal.SIGKILL)
            self.kills.append(await self._recovery(victim, moved))
            await asyncio.sleep(REST_S)

    async def _recovery(self, victim: Process, moved: Callable[[float], Awaitable[bool]]) -> Kill:
        at_s = self._now()
        self._say(f"killed {victim.name} (pid {victim.pid})")
        deadline_s = at_s + BACK_WITHIN_S
        ready = await self._until(lambda: self._is_ready(victim), deadline_s)
        ready_s = self._now() if ready else None
        ready_at_s = time.time()
        back = ready and await self._until(lambda: moved(ready_at_s), deadline_s)
        back_s = self._now() if back else None
        took = f"after {back_s - at_s:.1f} s" if back_s is not None else "not in time"
        self._say(f"{victim.name} is back {took}")
        return Kill(victim.role, victim.name, at_s, ready_s, back_s)

    async def _is_ready(self, victim: Process) -> bool:
        new = stack.read(self._folder).named(victim.name)
        if new is None or new.pid == victim.pid or new.metrics_url is None:
            return False
        return _READY_LINE in await asyncio.to_thread(_fetch, new.metrics_url)

    async def _movement(self, running: Stack, role: str) -> Callable[[float], Awaitable[bool]]:
        """Return what tells whether the role's work has gone on since a moment."""

        async def answered(since_s: float) -> bool:
            return self._loop.last_ok_at_s > since_s

        async def ended(since_s: float) -> bool:
            return self._observer.newest_written_at_s > since_s

        async def viewed(_: float) -> bool:
            return sum((await viewed_offsets(running.views_dsn)).values()) > shown

        async def landed(_: float) -> bool:
            lake = stack.read(self._folder).of_role("lake")[0]
            return _total(await asyncio.to_thread(_fetch, lake.metrics_url or ""), _ROWS) > 0

        shown = sum((await viewed_offsets(running.views_dsn)).values()) if role == "views" else 0
        return {
            "gateway": answered, "streams": ended, "ledger_writer": ended, "views": viewed,
            "lake": landed,
        }[role]  # fmt: skip

    async def _until(self, true: Callable[[], Awaitable[bool]], deadline_s: float) -> bool:
        while not await true():
            if self._now() > deadline_s:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def _now(self) -> float:
        return time.time() - self._loop.started_at_s


_ROWS: Final = b"headrace_lake_rows_total{"


def _fetch(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            body: bytes = answer.read()
            return body
    except OSError:
        return b""


def _total(metrics: bytes, family: bytes) -> float:
    """Add up the samples of one family."""
    lines = (line for line in metrics.splitlines() if line.startswith(family))
    return sum(float(line.rsplit(b" ", 1)[1]) for line in lines)
